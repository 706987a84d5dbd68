"""The fleet at a glance: one line per device with its freshness, what it serves and how it has decided lately.

Rules:
- What a device last reported is shown as it said it; whether that still holds is the freshness's word, not ours.
- Recent figures rest on the newest decisions of the last `RECENT_MS`, so many that a page stays quick, and say so.
- A revoked device is not part of the fleet.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from cloud.console.views.alarms import Alarm, standing
from cloud.console.views.freshness import Freshness, freshness
from cloud.tables import decisions, device_state, devices

RECENT_MS = 10 * 60_000
SAMPLE = 300
"""Newest decisions looked at of one device: enough for a p99."""
SAMPLE_OF_FLEET = 6000
"""The same for all devices together, shared evenly: about 30 ms."""
SAMPLE_AT_LEAST = 20
MAX_DEVICES = 500
CLOCK_TOLERANCE_MS = 30_000
"""A device's clock may differ by so much before the page says so: batches and networks take time."""
VERDICTS = ("pass", "accept", "divert", "defer")


@dataclass(frozen=True)
class SlotLine:
    """One bundle on a device."""

    model: str
    version: str
    digest: str
    state: str
    since_ms: int | None
    reason: str | None
    size_bytes: int | None = None


@dataclass(frozen=True)
class StationLine:
    """One station as the device reported it."""

    station: str
    model: str
    version: str | None
    digest: str | None
    mode: str
    runtime: str | None
    decisions: int
    last_decision_at_ms: int | None
    problem: str | None


@dataclass(frozen=True)
class Recent:
    """How a device has decided lately."""

    n: int
    per_minute: float | None
    verdicts: dict[str, int]
    deferral_share: float | None
    p50_ms: float | None
    p99_ms: float | None
    last_at_ms: int | None


@dataclass(frozen=True)
class DeviceLine:
    """One device as a line of the fleet."""

    device: str
    site: str
    profile: str
    freshness: Freshness
    stations: list[StationLine]
    slots: list[SlotLine]
    recent: Recent
    alarms: list[Alarm]
    outbox_rows: int | None
    clock_ahead_ms: int | None
    """How far the device's clock is off, where that is worth saying."""


@dataclass(frozen=True)
class Fleet:
    """All devices, and how many are in which state."""

    devices: list[DeviceLine]
    sample: int = SAMPLE
    """Newest decisions that the figures of each device rest on, at most."""
    states: dict[str, int] = field(default_factory=dict)
    cut: bool = False
    """Whether there are more devices than the page shows."""


def fleet(connection: Connection, now_ms: int, alarms: Sequence[Alarm] | None = None) -> Fleet:
    """Return every device that is not revoked: what needs a look first, then by name."""
    rows = list(connection.execute(_query().limit(MAX_DEVICES + 1)).mappings())
    by_device: dict[str, list[Alarm]] = {}
    for alarm in standing(connection, now_ms) if alarms is None else alarms:
        by_device.setdefault(alarm.device, []).append(alarm)
    sample = max(SAMPLE_AT_LEAST, min(SAMPLE, SAMPLE_OF_FLEET // max(1, len(rows))))
    lines = [
        device_line(connection, row, by_device.get(row["device"], []), now_ms, sample) for row in rows[:MAX_DEVICES]
    ]
    return Fleet(lines, sample, dict(Counter(line.freshness.state for line in lines)), cut=len(rows) > MAX_DEVICES)


def device_line(
    connection: Connection, row: Mapping[Any, Any], alarms: list[Alarm], now_ms: int, sample: int = SAMPLE
) -> DeviceLine:
    """Return one device's line from its joined row of `devices` and `device_state`."""
    reported = row["reported"] or {}
    health = reported.get("health") or {}
    return DeviceLine(
        device=row["device"],
        site=row["site"],
        profile=row["profile"],
        freshness=freshness(row, now_ms),
        stations=stations_of(reported),
        slots=slots_of(reported),
        recent=recent(connection, row["device"], now_ms, sample),
        alarms=alarms,
        outbox_rows=health.get("outbox_rows"),
        clock_ahead_ms=_clock_ahead(reported, row["reported_at_ms"]),
    )


def one_device(connection: Connection, device: str) -> Mapping[Any, Any] | None:
    """Return the joined row of one device, revoked or not, or None where it never enrolled."""
    return connection.execute(_query(revoked=True).where(devices.c.device == device)).mappings().first()


def recent(connection: Connection, device: str, now_ms: int, sample: int = SAMPLE) -> Recent:
    """Return how a device has decided in the last minutes, from its newest decisions."""
    rows = connection.execute(
        select(decisions.c.verdict, decisions.c.latency_ms, decisions.c.at_ms)
        .where(decisions.c.device == device, decisions.c.at_ms >= now_ms - RECENT_MS)
        .order_by(decisions.c.at_ms.desc())
        .limit(sample)
    ).all()
    found = Counter(row.verdict for row in rows)
    latencies = sorted(row.latency_ms for row in rows if row.latency_ms is not None)
    n = len(rows)
    span_ms = max(now_ms - rows[-1].at_ms, 1000) if n == sample else RECENT_MS
    return Recent(
        n=n,
        per_minute=n * 60_000 / span_ms if n else None,
        verdicts={verdict: found[verdict] for verdict in VERDICTS if found[verdict]},
        deferral_share=found["defer"] / n if n else None,
        p50_ms=rank(latencies, 0.5),
        p99_ms=rank(latencies, 0.99),
        last_at_ms=rows[0].at_ms if n else None,
    )


def stations_of(reported: Mapping[Any, Any]) -> list[StationLine]:
    """Return the stations in a `reported` document."""
    lines = []
    for name, station in sorted((reported.get("stations") or {}).items()):
        serving = station.get("serving") or {}
        lines.append(
            StationLine(
                station=name,
                model=station.get("model", ""),
                version=serving.get("version"),
                digest=serving.get("digest"),
                mode=station.get("mode", ""),
                runtime=station.get("runtime"),
                decisions=station.get("decisions", 0),
                last_decision_at_ms=station.get("last_decision_at_ms"),
                problem=station.get("problem"),
            )
        )
    return lines


def slots_of(reported: Mapping[Any, Any]) -> list[SlotLine]:
    """Return the bundles in a `reported` document."""
    return [
        SlotLine(
            model=model,
            version=slot["bundle"]["version"],
            digest=slot["bundle"]["digest"],
            state=slot["state"],
            since_ms=slot.get("since_ms"),
            reason=slot.get("reason"),
            size_bytes=slot["bundle"].get("size_bytes"),
        )
        for model, slots in sorted((reported.get("slots") or {}).items())
        for slot in slots
    ]


def rank(values: Sequence[float], share: float) -> float | None:
    """Return the value at this share of ascending values (nearest rank), or None of none."""
    if not values:
        return None
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _query(*, revoked: bool = False) -> Any:
    state = device_state.c
    query = (
        select(
            devices,
            state.boot_id, state.online, state.presence_at_ms, state.reported_at_ms,
            state.last_heard_at_ms, state.interval_s, state.reported,
        )
        .select_from(devices.outerjoin(device_state, devices.c.device == state.device))
        .order_by(devices.c.site, devices.c.device)
    )  # fmt: skip
    return query if revoked else query.where(devices.c.revoked_at_ms.is_(None))


def _clock_ahead(reported: Mapping[Any, Any], received_at_ms: int | None) -> int | None:
    sent = reported.get("sent_at_ms")
    if not sent or not received_at_ms or abs(sent - received_at_ms) < CLOCK_TOLERANCE_MS:
        return None
    return int(sent - received_at_ms)
