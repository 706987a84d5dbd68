"""Takes devices into the fleet, and makes the claims with which they come."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cloud.callers import Operator
from cloud.enrolment import DEFAULT_CLAIM_S, LONGEST_CLAIM_S
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


@router.post("/enrol")
def enrol(request: EnrolRequest, parts: Parts) -> EnrolAnswer:
    """Give a device its credentials."""
    return parts.enrolment.enrol(request)


@router.post("/claims", status_code=201)
def create_claim(request: ClaimRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make a one-time token; this answer is the only place where it is shown."""
    claim = parts.enrolment.create_claim(
        profile=request.profile, site=request.site, device=request.device, ttl_s=request.ttl_s, who=who
    )
    return dict(claim.__dict__)
