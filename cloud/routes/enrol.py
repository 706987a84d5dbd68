"""Takes devices into the fleet, makes the claims with which they come, and says whom to believe."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from cloud.callers import Operator
from cloud.enrolment import DEFAULT_CLAIM_S, LONGEST_CLAIM_S
from cloud.errors import NotFoundError
from cloud.services import Parts
from edge.wire.base import Name
from edge.wire.http import EnrolAnswer, EnrolRequest

router = APIRouter(prefix="/v1")


class ClaimRequest(BaseModel):
    """What a claim is for; None for anything."""

    profile: str | None = Field(default=None, max_length=64)
    site: str | None = Field(default=None, max_length=64)
    device: Name | None = None
    ttl_s: float = Field(default=DEFAULT_CLAIM_S, gt=0, le=LONGEST_CLAIM_S)


@router.get("/ca", response_class=Response, responses={200: {"content": {"application/x-pem-file": {}}}})
def ca(parts: Parts) -> Response:
    """Give the certificate that devices verify us by; a claim says its digest, so it may be asked of anybody."""
    trusted = parts.security.trust_pem
    if trusted is None:
        raise NotFoundError("this control plane shows a certificate that systems trust already")
    return Response(trusted, media_type="application/x-pem-file")


@router.post("/enrol")
def enrol(request: EnrolRequest, parts: Parts, call: Request) -> EnrolAnswer:
    """Give a device its credentials."""
    return parts.enrolment.enrol(request, reached_at=call.url.hostname or "")


@router.post("/claims", status_code=201)
def create_claim(request: ClaimRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make a one-time token; this answer is the only place where it is shown."""
    claim = parts.enrolment.create_claim(
        profile=request.profile, site=request.site, device=request.device, ttl_s=request.ttl_s, who=who
    )
    return dict(claim.__dict__)
