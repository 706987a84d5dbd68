"""What has drifted, for machines: by station, and by metric over the fleet."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from cloud.services import Parts
from cloud.telemetry.drift import streams_watched
from cloud.telemetry.driftreport import report, spread

router = APIRouter(prefix="/v1/drift")


@router.get("")
def drift(parts: Parts, device: Annotated[str | None, Query(max_length=64)] = None) -> dict[str, Any]:
    """Show which input moved, how far, since when, on which devices, and whether decisions moved with it."""
    with parts.store.read() as connection:
        stations = report(connection, parts.clock.now_ms(), device)
        return {
            "watched": streams_watched(connection),
            "false_alarms_per_year": parts.config.drift.false_alarms_per_year,
            "metrics": [asdict(one) for one in spread(connection, stations)],
            "stations": [one.as_json() for one in stations],
        }
