"""Counts what is told by the window of time and not by the decision: crashes, drift, disagreement; and finds the p99.

Rules:
- A window of telemetry counts as crashed if a model's process or a station failed on its device within it, and as
  drifted if some input metric of its station differed from the bundle's reference in any part of it.
- A device tells how often the candidate in the shadow agreed; those counts are added up as they come.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection, case, exists, func, select

from cloud import tables
from cloud.arms import CLOCK_SLACK_MS, Arm, Tally

CRASHES = ("bundle_failed", "station_failed")
"""Events of a model's process, or of a station's thread, that ended by itself."""
DRIFT = ("drift_raised", "drift_cleared")
DRIFT_KNOWN_MS = 7 * 86_400_000
"""A drift that was raised longer ago than a week and not cleared is taken as how things are."""
DEVICES_AT_ONCE = 500
"""In one query; SQLite takes 32,766 values."""
MIN_FOR_P99 = 1000
"""Decisions that a p99 needs: ten lie above it."""

Span = tuple[int, float]
"""From (Unix milliseconds) until (excluded; infinity if it goes on)."""


def windows(connection: Connection, arm: Arm, from_ms: int, until_ms: int) -> Tally:
    """Return how many windows of telemetry there are (`n`), and in how many something crashed (`crashed`)."""
    found: Tally = {}
    t, e = tables.telemetry.c, tables.events.c
    crashed = exists().where(
        e.device == t.device,
        e.incarnation == t.incarnation,
        e.name.in_(CRASHES),
        e.at_ms > t.started_at_ms,
        e.at_ms <= t.at_ms,
    )
    for names in _some(arm):
        query = (
            select(t.device, t.digest, func.count(), func.sum(case((crashed, 1), else_=0)))
            .where(t.device.in_(names), t.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
            .where(t.started_at_ms >= arm.since_ms - CLOCK_SLACK_MS)
            .where(t.received_at_ms >= from_ms, t.received_at_ms < until_ms)
            .where(t.digest.in_(set(arm.digests.values())))
            .group_by(t.device, t.digest)
        )
        for device, digest, number, bad in connection.execute(query) if from_ms < until_ms else ():
            found[device, digest] = Counter({"n": int(number), "crashed": int(bad)})
    return found


def drifted(connection: Connection, arm: Arm) -> int:
    """Return in how many windows of an arm an input metric differed from the reference."""
    t, count = tables.telemetry.c, 0
    for names in _some(arm):
        spans = _drift_spans(connection, names, arm)
        query = (
            select(t.device, t.station, t.digest, t.started_at_ms, t.at_ms)
            .where(t.device.in_({device for device, _ in spans}), t.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
            .where(t.started_at_ms >= arm.since_ms - CLOCK_SLACK_MS)
            .where(t.received_at_ms >= arm.since_ms, t.received_at_ms < arm.until_ms)
        )
        for row in connection.execute(query) if spans else ():
            if arm.digests.get(row.device) == row.digest:
                there = spans.get((row.device, row.station), [])
                count += any(begun < row.at_ms and row.started_at_ms < ended for begun, ended in there)
    return count


def judged_by_both(connection: Connection, arm: Arm, from_ms: int, until_ms: int) -> Tally:
    """Return how many inputs both versions judged (`n`), and on how many they agreed (`agreed`)."""
    found: Tally = {}
    e = tables.events.c
    query = (
        select(e.device, e.body)
        .where(e.name == "shadow_counted", e.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
        .where(e.received_at_ms >= from_ms, e.received_at_ms < until_ms)
    )
    for device, body in connection.execute(query) if from_ms < until_ms else ():
        data = body.get("data", {})
        judged, agreed = (_whole(data.get(name)) for name in ("judged", "agreed"))
        digest = str((data.get("bundle") or {}).get("digest"))
        found.setdefault((device, digest), Counter()).update({"n": judged, "agreed": min(agreed, judged)})
    return found


def p99_ms(connection: Connection, arm: Arm) -> tuple[float | None, int]:
    """Return the p99 of the time that an arm's versions took, None where too few are known; and how many are known."""
    c = tables.decisions.c
    mine = (
        c.digest.in_(set(arm.digests.values())),
        c.received_at_ms >= arm.since_ms,
        c.received_at_ms < arm.until_ms,
        c.latency_ms.is_not(None),
    )
    number = int(connection.execute(select(func.count()).where(*mine)).scalar_one())
    if number < MIN_FOR_P99:
        return None, number
    query = select(c.latency_ms).where(*mine).order_by(c.latency_ms.desc()).offset(number // 100).limit(1)
    return float(connection.execute(query).scalar_one()), number


def _some(arm: Arm) -> Iterator[list[str]]:
    names = sorted(arm.digests)
    for start in range(0, len(names), DEVICES_AT_ONCE):
        yield names[start : start + DEVICES_AT_ONCE]


def _drift_spans(connection: Connection, names: list[str], arm: Arm) -> dict[tuple[str, str], list[Span]]:
    """Return when some metric of a station differed, by device and station."""
    e = tables.events.c
    query = (
        select(e.device, e.station, e.name, e.at_ms, e.body)
        .where(e.device.in_(names), e.name.in_(DRIFT), e.at_ms >= arm.since_ms - DRIFT_KNOWN_MS)
        .order_by(e.device, e.incarnation, e.seq)
    )
    raised: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    spans: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for row in connection.execute(query):
        place, metric = (row.device, str(row.station)), str(row.body.get("data", {}).get("metric"))
        if row.name == "drift_raised":
            raised[place].setdefault(metric, row.at_ms)
        elif metric in raised[place]:
            spans[place].append((raised[place].pop(metric), float(row.at_ms)))
    for place, going in raised.items():
        spans[place] += [(begun, float("inf")) for begun in going.values()]
    return {place: found for place, found in spans.items() if found}


def _whole(value: object) -> int:
    """Return a count out of a document from outside."""
    return value if isinstance(value, int) and value > 0 else 0
