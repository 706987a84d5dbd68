"""Whom devices believe: what each is told, its renewed certificate, and the authority that takes another's place."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from cloud.access import Device
from cloud.authorities import LONGEST_OVERLAP_S, OVERLAP_S, describe
from cloud.callers import Operator
from cloud.services import Parts
from edge.wire.http import Renewal, RenewRequest, Trust

router = APIRouter(prefix="/v1")

DAY_S = 86_400.0


class RotateRequest(BaseModel):
    """Why, and how long both are trusted."""

    why: str = Field(min_length=1, max_length=2000)
    overlap_s: float = Field(default=OVERLAP_S, ge=DAY_S, le=LONGEST_OVERLAP_S)


class RetireRequest(BaseModel):
    """Why."""

    why: str = Field(min_length=1, max_length=2000)


@router.get("/trust")
def trust(parts: Parts, device: Device) -> Trust:
    """Tell a device whom to believe, and whether to renew its certificate."""
    return parts.enrolment.trust_of(device)


@router.post("/renew")
def renew(request: RenewRequest, parts: Parts, device: Device) -> Renewal:
    """Give a device another certificate."""
    return parts.enrolment.renew(device, request)


@router.get("/authority")
def status(parts: Parts) -> dict[str, Any]:
    """Return the authorities, what each has signed, and the devices that do not know the newest yet."""
    return describe(parts.store, parts.clock.now_ms())


@router.post("/authority/rotate", status_code=201)
def rotate(request: RotateRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """Make the next authority; the present one stays trusted for a while."""
    at_once = not parts.config.broker.uses_certificates
    parts.security.authorities.rotate(who=who, why=request.why, overlap_s=request.overlap_s, at_once=at_once)
    return describe(parts.store, parts.clock.now_ms())


@router.post("/authority/retire")
def retire(request: RetireRequest, parts: Parts, who: Operator) -> dict[str, Any]:
    """End the authority that is being replaced, now."""
    parts.security.authorities.retire(who=who, why=request.why)
    return describe(parts.store, parts.clock.now_ms())
