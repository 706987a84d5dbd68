"""Alarms and warnings that still stand: what devices raised and have not taken back.

Rules:
- `…_raised` stands until `…_cleared`, and `…_lost` until `…_found`, of the same device, station and model comes, for
  at most a week.
- A start of the daemon begins its watches anew, so what an earlier start raised no longer stands; drift is watched
  per bundle, so another bundle ends it, too.
- What has no counterpart is a fact and not a state: it is shown for an hour.
- Several of the same kind are one line with their number and the newest one's words.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from cloud.tables import device_state, events

DRIFT = "drift_"
ENDS = {"_raised": "_cleared", "_lost": "_found"}
OTHER_BUNDLE = ("bundle_opened", "bundle_returned")
"""Another bundle decides from now on."""
STANDS_MS = 7 * 86_400_000
FACT_MS = 3_600_000
ROWS = 500
"""Newest warnings looked at per severity: beyond so many the oldest no longer tell anything new."""


@dataclass(frozen=True)
class Alarm:
    """One kind of warning of one device that stands now."""

    device: str
    name: str
    severity: str
    station: str | None
    model: str | None
    detail: str
    metric: str | None
    first_ms: int
    last_ms: int
    times: int

    @property
    def is_drift(self) -> bool:
        return self.name.startswith(DRIFT)


def standing(connection: Connection, now_ms: int, device: str | None = None) -> list[Alarm]:
    """Return what stands now, alarms before warnings, newest first; of one device or of all."""
    raised = _rows(connection, now_ms - STANDS_MS, device)
    cleared = _ended(connection, {row["name"] for row in raised}, now_ms - STANDS_MS)
    boots = {
        row.device: row.boot_id for row in connection.execute(select(device_state.c.device, device_state.c.boot_id))
    }
    return _grouped(raised, cleared, boots, now_ms)


def condensed(alarms: Iterable[Alarm]) -> list[Alarm]:
    """Return the alarms with all drifting metrics of one station as one: a lamp that dims moves several at once."""
    together: dict[tuple[Any, ...], list[Alarm]] = {}
    for alarm in alarms:
        apart = None if alarm.is_drift else alarm.metric
        key = (alarm.device, alarm.name, alarm.severity, alarm.station, alarm.model, apart)
        together.setdefault(key, []).append(alarm)
    return [_joined(group) if len(group) > 1 else group[0] for group in together.values()]


def _joined(group: list[Alarm]) -> Alarm:
    metrics = [alarm.metric for alarm in group if alarm.metric]
    return replace(
        group[0],
        metric=", ".join(sorted(metrics)),
        detail="; ".join(alarm.detail for alarm in group),
        first_ms=min(alarm.first_ms for alarm in group),
        last_ms=max(alarm.last_ms for alarm in group),
        times=1,
    )


def _rows(connection: Connection, since_ms: int, device: str | None) -> list[Mapping[Any, Any]]:
    found: list[Mapping[Any, Any]] = []
    for severity in ("alarm", "warning"):
        query = select(
            events.c.device, events.c.name, events.c.severity, events.c.station, events.c.model,
            events.c.detail, events.c.at_ms, events.c.body,
        ).where(events.c.severity == severity, events.c.at_ms >= since_ms)  # fmt: skip
        if device is not None:
            query = query.where(events.c.device == device)
        found += connection.execute(query.order_by(events.c.at_ms.desc()).limit(ROWS)).mappings()
    return found


def _ended(connection: Connection, names: set[str], since_ms: int) -> dict[tuple[Any, ...], int]:
    """Return when each state was last taken back, by its key, and when each model got another bundle."""
    ends = [_end_of(name) for name in names if _end_of(name)]
    if not ends:
        return {}
    query = (
        select(events.c.device, events.c.name, events.c.station, events.c.model, events.c.at_ms, events.c.body)
        .where(events.c.name.in_([*ends, *OTHER_BUNDLE]), events.c.at_ms >= since_ms)
        .order_by(events.c.at_ms.desc())
        .limit(4 * ROWS)
    )
    found: dict[tuple[Any, ...], int] = {}
    for row in connection.execute(query).mappings():
        key = (row["device"], row["model"]) if row["name"] in OTHER_BUNDLE else _key(row)
        found.setdefault(key, row["at_ms"])
    return found


def _grouped(
    rows: Iterable[Mapping[Any, Any]],
    cleared: Mapping[tuple[Any, ...], int],
    boots: Mapping[str, str | None],
    now_ms: int,
) -> list[Alarm]:
    groups: dict[tuple[Any, ...], list[Mapping[Any, Any]]] = {}
    for row in rows:
        if _end_of(row["name"]):
            stands = _ended_ms(row, cleared) < row["at_ms"] and _same_boot(row, boots.get(row["device"]))
        else:
            stands = row["at_ms"] >= now_ms - FACT_MS
        if stands:
            groups.setdefault((*_key(row), row["severity"]), []).append(row)
    alarms = [_alarm(group) for group in groups.values()]
    return sorted(alarms, key=lambda a: (a.severity != "alarm", -a.last_ms))


def _ended_ms(row: Mapping[Any, Any], ended: Mapping[tuple[Any, ...], int]) -> int:
    """Return when this state last ended, 0 for never."""
    other_bundle = ended.get((row["device"], row["model"]), 0) if row["name"].startswith(DRIFT) else 0
    return max(ended.get(_key(row), 0), other_bundle)


def _same_boot(row: Mapping[Any, Any], boot_id: str | None) -> bool:
    return not boot_id or (row["body"] or {}).get("boot_id", boot_id) == boot_id


def _alarm(group: list[Mapping[Any, Any]]) -> Alarm:
    newest = max(group, key=lambda row: row["at_ms"])
    return Alarm(
        device=newest["device"],
        name=newest["name"],
        severity=newest["severity"],
        station=newest["station"],
        model=newest["model"],
        detail=newest["detail"],
        metric=_metric(newest),
        first_ms=min(row["at_ms"] for row in group),
        last_ms=newest["at_ms"],
        times=len(group),
    )


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Return what a state and its end have in common."""
    name = row["name"]
    return (row["device"], _end_of(name) or name, row["station"], row["model"], _metric(row))


def _end_of(name: str) -> str | None:
    """Return the event that takes this one back, or None for a fact."""
    return next((name.removesuffix(begin) + end for begin, end in ENDS.items() if name.endswith(begin)), None)


def _metric(row: Mapping[Any, Any]) -> str | None:
    data = (row["body"] or {}).get("data") or {}
    metric = data.get("metric") if isinstance(data, dict) else None
    return metric if isinstance(metric, str) else None
