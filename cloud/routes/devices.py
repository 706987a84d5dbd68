"""Shows the fleet: devices, what they decided, what happened to them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from cloud.callers import Operator
from cloud.services import Parts

router = APIRouter(prefix="/v1")

Last = Annotated[int, Query(ge=1, le=1000)]


class Reason(BaseModel):
    """Why something is done."""

    why: str = ""


@router.get("/devices")
def devices(parts: Parts) -> list[dict[str, Any]]:
    """List all devices of the fleet."""
    return [view.as_json() for view in parts.fleet.devices()]


@router.get("/devices/{device}")
def device(device: str, parts: Parts) -> dict[str, Any]:
    """Show one device."""
    return parts.fleet.device(device).as_json()


@router.get("/devices/{device}/decisions")
def decisions(device: str, parts: Parts, last: Last = 50, station: str | None = None) -> list[dict[str, Any]]:
    """List a device's newest decisions."""
    return parts.fleet.decisions(parts.fleet.device(device).device, last=last, station=station)


@router.get("/devices/{device}/events")
def events(device: str, parts: Parts, last: Last = 50) -> list[dict[str, Any]]:
    """List a device's newest events."""
    return parts.fleet.events(parts.fleet.device(device).device, last=last)


@router.get("/devices/{device}/telemetry")
def telemetry(device: str, parts: Parts, last: Last = 50) -> list[dict[str, Any]]:
    """List a device's newest telemetry windows."""
    return parts.fleet.telemetry(parts.fleet.device(device).device, last=last)


@router.get("/events")
def all_events(parts: Parts, last: Last = 50, name: str | None = None) -> list[dict[str, Any]]:
    """List the newest events of all devices."""
    return parts.fleet.events(last=last, name=name)


@router.post("/devices/{device}/revoke", status_code=204)
def revoke(device: str, reason: Reason, parts: Parts, who: Operator) -> None:
    """Put a device out of the fleet."""
    parts.enrolment.revoke(device, who=who, why=reason.why)
