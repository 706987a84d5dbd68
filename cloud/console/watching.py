"""The console's pages of what is watched: telemetry over time, drift, alerts."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from sqlalchemy import Connection

from cloud.alerts.book import shown, standing_silences
from cloud.console.pages import Values, live_page
from cloud.console.views.fleet import one_device
from cloud.console.views.telemetry import SPANS, Choice, telemetry_page
from cloud.services import Parts
from cloud.telemetry.drift import streams_watched
from cloud.telemetry.driftreport import report, spread
from cloud.telemetry.rollups import keeps_ms

router = APIRouter(include_in_schema=False)

Text = Annotated[str, Query(max_length=64)]


@router.get("/telemetry")
def telemetry(
    request: Request,
    parts: Parts,
    stage: Text = "",
    hours: Annotated[int, Query(ge=1, le=50_000)] = 24,
    device: Text = "",
    site: Text = "",
    version: Text = "",
) -> Response:
    """Show the metrics of a stage over time."""
    choice = Choice(stage or None, hours, device or None, site or None, version or None)

    def values(connection: Connection, now_ms: int) -> Values:
        kept = keeps_ms(parts.config.telemetry)
        return {"page": telemetry_page(connection, choice, kept, now_ms), "spans": SPANS}

    return live_page(request, parts, "telemetry.html", "/telemetry", values)


@router.get("/drift")
def drift(request: Request, parts: Parts) -> Response:
    """Show what has drifted in the fleet."""
    return _drift(request, parts, None)


@router.get("/drift/{device}")
def drift_of_device(request: Request, parts: Parts, device: str) -> Response:
    """Show what has drifted at one device."""
    return _drift(request, parts, device)


@router.get("/alerts")
def alerts(request: Request, parts: Parts) -> Response:
    """Show what fires, and what is over."""

    def values(connection: Connection, now_ms: int) -> Values:
        found = shown(connection, now_ms, open_only=False, last=100)
        return {
            "firing": shown(connection, now_ms, open_only=True, last=500),
            "ended": [one for one in found if one["state"] == "resolved"][:50],
            "quiet": standing_silences(connection, now_ms),
            "rules": len(parts.watched.rule),
        }

    return live_page(request, parts, "alerts.html", "/alerts", values)


def _drift(request: Request, parts: Parts, device: str | None) -> Response:
    def values(connection: Connection, now_ms: int) -> Values:
        if device is not None and one_device(connection, device) is None:
            raise HTTPException(404, f"No device is called {device}.")
        stations = report(connection, now_ms, device)
        return {
            "stations": stations,
            "spread": spread(connection, stations),
            "watched": streams_watched(connection),
            "rate": parts.config.drift.false_alarms_per_year,
            "device": device,
        }

    return live_page(request, parts, "drift.html", "/drift", values)
