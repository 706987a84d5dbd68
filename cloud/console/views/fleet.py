"""The fleet at a glance: one line per device with its freshness, what it serves and how it has decided lately.

Rules:
- What a device last reported is shown as it said it; whether that still holds is the freshness's word, not ours.
- Recent figures rest on at most `SAMPLE` decisions of the last `RECENT_MS`, and say on how many.
- A revoked device is not part of the fleet.
"""

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
"""Newest decisions looked at per device: a hundred devices stay within the time of a page."""
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
    states: dict[str, int] = field(default_factory=dict)
    cut: bool = False
    """Whether there are more devices than the page shows."""


def fleet(connection: Connection, now_ms: int, alarms: Sequence[Alarm] | None = None) -> Fleet:
    """Return every device that is not revoked: what needs a look first, then by name."""
    rows = list(connection.execute(_query().limit(MAX_DEVICES + 1)).mappings())
    by_device: dict[str, list[Alarm]] = {}
    for alarm in standing(connection, now_ms) if alarms is None else alarms:
        by_device.setdefault(alarm.device, []).append(alarm)
    lines = [device_line(connection, row, by_device.get(row["device"], []), now_ms) for row in rows[:MAX_DEVICES]]
    return Fleet(lines, dict(Counter(line.freshness.state for line in lines)), cut=len(rows) > MAX_DEVICES)


def device_line(connection: Connection, row: Mapping[Any, Any], alarms: list[Alarm], now_ms: int) -> DeviceLine:
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
        recent=recent(connection, row["device"], now_ms),
        alarms=alarms,
        outbox_rows=health.get("outbox_rows"),
        clock_ahead_ms=_clock_ahead(reported, row["reported_at_ms"]),
    )


def one_device(connection: Connection, device: str) -> Mapping[Any, Any] | None:
    """Return the joined row of one device, revoked or not, or None where it never enrolled."""
    return connection.execute(_query(revoked=True).where(devices.c.device == device)).mappings().first()


def recent(connection: Connection, device: str, now_ms: int) -> Recent:
    """Return how a device has decided in the last minutes."""
    rows = connection.execute(
        select(decisions.c.verdict, decisions.c.latency_ms, decisions.c.at_ms)
        .where(decisions.c.device == device, decisions.c.at_ms >= now_ms - RECENT_MS)
        .order_by(decisions.c.at_ms.desc())
        .limit(SAMPLE)
    ).all()
    found = Counter(row.verdict for row in rows)
    latencies = sorted(row.latency_ms for row in rows if row.latency_ms is not None)
    n = len(rows)
    span_ms = max(now_ms - rows[-1].at_ms, 1000) if n == SAMPLE else RECENT_MS
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
    return values[min(len(values) - 1, max(0, round(share * len(values) + 0.5) - 1))]


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
