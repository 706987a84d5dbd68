"""One device: its bundles, stations, events and how its inputs compare with the bundle's reference.

Rules:
- Charts hold the newest `WINDOWS` telemetry windows of a station; older ones are not on this page.
- The reference is that of the bundle that the newest window was made with; where it is unknown here, the page says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from cloud.console import charts, histograms
from cloud.console.views.alarms import Alarm, standing
from cloud.console.views.fleet import DeviceLine, device_line, one_device
from cloud.tables import bundles, events, telemetry
from edge.wire.rows import Histogram

WINDOWS = 90
EVENTS = 30
LATENCY = "latency_ms.total"


@dataclass(frozen=True)
class Refusal:
    """A bundle that the device would not take."""

    bundle: str
    at_ms: int
    reason: str


@dataclass(frozen=True)
class EventLine:
    """Something that changed or went wrong on the device."""

    at_ms: int
    name: str
    severity: str
    station: str | None
    model: str | None
    detail: str


@dataclass(frozen=True)
class MetricChart:
    """One metric of one station over the newest windows, against the bundle's reference."""

    station: str
    metric: str
    trend: charts.Trend
    distribution: charts.Distribution | None
    median: float | None
    reference_median: float | None
    drift: Alarm | None


@dataclass(frozen=True)
class ChartGroup:
    """The charts of one station."""

    station: str
    model: str
    version: str | None
    from_ms: int
    to_ms: int
    windows: int
    has_reference: bool
    charts: list[MetricChart]


@dataclass(frozen=True)
class DevicePage:
    """Everything about one device but its decisions."""

    line: DeviceLine
    tags: list[str]
    revoked_at_ms: int | None
    enrolled_at_ms: int
    software: str | None
    boot_id: str | None
    config_version: int | None
    sent_at_ms: int | None
    interval_s: float | None
    health: dict[str, Any]
    refusals: list[Refusal]
    events: list[EventLine]
    groups: list[ChartGroup]


def device_page(connection: Connection, device: str, now_ms: int) -> DevicePage | None:
    """Return the page of a device, or None where none of this name ever enrolled."""
    row = one_device(connection, device)
    if row is None:
        return None
    alarms = standing(connection, now_ms, device)
    reported = row["reported"] or {}
    return DevicePage(
        line=device_line(connection, row, alarms, now_ms),
        tags=list(row["tags"] or []),
        revoked_at_ms=row["revoked_at_ms"],
        enrolled_at_ms=row["enrolled_at_ms"],
        software=reported.get("software"),
        boot_id=row["boot_id"],
        config_version=reported.get("config_version"),
        sent_at_ms=reported.get("sent_at_ms"),
        interval_s=row["interval_s"],
        health=reported.get("health") or {},
        refusals=_refusals(reported),
        events=_events(connection, device),
        groups=_groups(connection, device, alarms),
    )


def _refusals(reported: Mapping[str, Any]) -> list[Refusal]:
    found = [
        Refusal(f"{entry['bundle']['name']} {entry['bundle']['version']}", entry["at_ms"], entry["reason"])
        for entry in reported.get("refusals") or []
    ]
    return sorted(found, key=lambda refusal: -refusal.at_ms)


def _events(connection: Connection, device: str) -> list[EventLine]:
    c = events.c
    query = (
        select(c.at_ms, c.name, c.severity, c.station, c.model, c.detail)
        .where(c.device == device)
        .order_by(c.at_ms.desc(), c.seq.desc())
        .limit(EVENTS)
    )
    return [EventLine(**row) for row in connection.execute(query).mappings()]


def _groups(connection: Connection, device: str, alarms: Sequence[Alarm]) -> list[ChartGroup]:
    c = telemetry.c
    rows = connection.execute(
        select(c.station, c.model, c.digest, c.started_at_ms, c.at_ms, c.body)
        .where(c.device == device)
        .order_by(c.at_ms.desc(), c.seq.desc())
        .limit(WINDOWS)
    ).mappings()
    by_station: dict[str, list[Mapping[Any, Any]]] = {}
    for row in rows:
        by_station.setdefault(row["station"], []).append(row)
    return [
        _group(connection, station, windows[::-1], [a for a in alarms if a.is_drift and a.station == station])
        for station, windows in sorted(by_station.items())
    ]


def _group(
    connection: Connection, station: str, windows: Sequence[Mapping[Any, Any]], drifts: Sequence[Alarm]
) -> ChartGroup:
    """Return the charts of a station from its windows, oldest first."""
    newest = next((w for w in reversed(windows) if w["digest"]), windows[-1])
    manifest = _manifest(connection, newest["digest"])
    reference = {name: histograms.read(document) for name, document in (manifest.get("reference") or {}).items()}
    series = _series(windows)
    order = sorted(series, key=lambda name: (name != LATENCY, name != "confidence", name))
    return ChartGroup(
        station=station,
        model=newest["model"],
        version=manifest.get("version"),
        from_ms=windows[0]["started_at_ms"],
        to_ms=windows[-1]["at_ms"],
        windows=len(windows),
        has_reference=bool(reference),
        charts=[
            chart
            for name in order
            if (chart := _chart(station, name, series[name], reference.get(name), drifts, newest["digest"]))
        ],
    )


def _series(windows: Sequence[Mapping[Any, Any]]) -> dict[str, list[tuple[int, str | None, Histogram]]]:
    """Return per metric its windows with something in them: (end, bundle's digest, histogram)."""
    series: dict[str, list[tuple[int, str | None, Histogram]]] = {}
    for window in windows:
        for name, document in (window["body"].get("histograms") or {}).items():
            if name.startswith("latency_ms.") and name != LATENCY:
                continue
            histogram = histograms.read(document)
            if histogram is not None and histogram.total:
                series.setdefault(name, []).append((window["at_ms"], window["digest"], histogram))
    return series


def _chart(
    station: str,
    name: str,
    parts: Sequence[tuple[int, str | None, Histogram]],
    reference: Histogram | None,
    drifts: Sequence[Alarm],
    digest: str | None,
) -> MetricChart | None:
    points = [(at, value) for at, _, h in parts if (value := histograms.quantile(h, 0.5)) is not None]
    line = charts.trend(points, reference)
    if line is None:
        return None
    lately = histograms.total_of(h for _, made_with, h in reversed(parts[-12:]) if made_with == digest)
    return MetricChart(
        station=station,
        metric=name,
        trend=line,
        distribution=charts.distribution(reference, lately) if reference and lately else None,
        median=histograms.quantile(lately, 0.5) if lately else None,
        reference_median=histograms.quantile(reference, 0.5) if reference else None,
        drift=next((alarm for alarm in drifts if alarm.metric == name), None),
    )


def _manifest(connection: Connection, digest: str | None) -> Mapping[str, Any]:
    if digest is None:
        return {}
    return connection.execute(select(bundles.c.manifest).where(bundles.c.digest == digest)).scalar() or {}
