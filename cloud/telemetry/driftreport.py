"""Tells what has drifted: which input, how far, since when, on which devices, and whether deferrals and labels moved.

Rules:
- One entry a station; what moved furthest first.
- Deferrals and labels of the time since are compared with those of the week before it; people's answers as well.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from cloud import tables
from cloud.audit_samples import is_wrong
from cloud.telemetry import driftrule
from cloud.telemetry.drift import INPUT_STAGES, WEEK_MS, drifting
from cloud.telemetry.driftrule import Comparison, Kind
from cloud.telemetry.tables import drift_states, metric_points, metric_series

ALPHA = 0.001
"""Of the question whether outputs moved as well: it is asked only where something drifts already."""
MAX_REVIEWS = 20_000
Shares = dict[str, tuple[float, float]]
"""Verdict or label → its share before and since."""


@dataclass(frozen=True)
class Moved:
    """One metric that has moved."""

    metric: str
    stage: str
    against: str
    words: str
    distance: float
    threshold: float
    since_ms: int
    median: float | None
    reference_median: float | None


@dataclass(frozen=True)
class StationDrift:
    """What has moved at one station."""

    device: str
    site: str
    station: str
    model: str
    version: str
    since_ms: int
    moved: list[Moved]
    verdicts: Shares
    labels: Shares
    wrong: tuple[float, float] | None
    """Share of decisions that people contradicted before and since; None if they looked at too few."""
    kind: Kind
    kind_words: str

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """On which devices one metric of a model has moved."""

    model: str
    metric: str
    against: str
    devices: list[str]
    of: int
    """Devices where it is watched."""
    since_ms: int
    furthest: float


def report(connection: Connection, now_ms: int, device: str | None = None) -> list[StationDrift]:
    """Return every station at which something drifts, of one device or of all."""
    stations: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in drifting(connection, device):
        stations.setdefault((row["device"], row["station"], row["model"]), []).append(row)
    d, b = tables.devices.c, tables.bundles.c
    sites = {row.device: row.site for row in connection.execute(select(d.device, d.site))}
    versions = {row.digest: row.version for row in connection.execute(select(b.digest, b.version))}
    return [
        _station(connection, key, rows, sites.get(key[0], ""), versions.get(rows[0]["digest"], ""), now_ms)
        for key, rows in stations.items()
    ]


def spread(connection: Connection, stations: Iterable[StationDrift]) -> list[Spread]:
    """Return on how many of the watched devices each metric has moved, most devices first."""
    found: dict[tuple[str, str, str], list[tuple[str, Moved]]] = {}
    for station in stations:
        for moved in station.moved:
            found.setdefault((station.model, moved.metric, moved.against), []).append((station.device, moved))
    spreads = [
        Spread(
            *key,
            devices=sorted({device for device, _ in moved}),
            of=_watched_on(connection, *key),
            since_ms=min(one.since_ms for _, one in moved),
            furthest=max(one.distance for _, one in moved),
        )
        for key, moved in found.items()
    ]
    return sorted(spreads, key=lambda one: (-len(one.devices), -one.furthest))


def _station(
    connection: Connection,
    key: tuple[str, str, str],
    rows: Sequence[Mapping[str, Any]],
    site: str,
    version: str,
    now_ms: int,
) -> StationDrift:
    moved = [Moved(**{name: row[name] for name in Moved.__dataclass_fields__}) for row in rows]
    since_ms = min(one.since_ms for one in moved)
    verdicts, verdicts_moved = _outputs(connection, key, "verdict.", since_ms, now_ms)
    labels, labels_moved = _outputs(connection, key, "label.", since_ms, now_ms)
    wrong, contradicted = _answers(connection, key, since_ms)
    inputs = any(one.stage in INPUT_STAGES for one in moved)
    outputs = verdicts_moved or labels_moved or any(one.stage not in INPUT_STAGES for one in moved)
    kind = driftrule.kind_of(inputs=inputs, outputs=outputs, errors=contradicted)
    assert kind is not None
    return StationDrift(
        *key[:1], site, *key[1:], version, since_ms, moved, verdicts, labels, wrong, kind, driftrule.KIND_WORDS[kind]
    )


def _outputs(
    connection: Connection, key: tuple[str, str, str], prefix: str, since_ms: int, now_ms: int
) -> tuple[Shares, bool]:
    s, p = metric_series.c, metric_points.c
    query = (
        select(s.metric, p.start_ms, p.n)
        .join(metric_points, p.series == s.id)
        .where(s.device == key[0], s.station == key[1], s.model == key[2], s.edges == 0, s.metric.like(f"{prefix}%"))
        .where(p.step_s == 3600, p.start_ms >= since_ms - WEEK_MS, p.start_ms < now_ms)
    )
    before: Counter[str] = Counter()
    since: Counter[str] = Counter()
    for row in connection.execute(query):
        (since if row.start_ms >= since_ms else before)[row.metric.removeprefix(prefix)] += row.n
    return _shares(before, since), _differs(driftrule.compare_categories(since, before, ALPHA))


def _answers(
    connection: Connection, key: tuple[str, str, str], since_ms: int
) -> tuple[tuple[float, float] | None, bool | None]:
    """Return how often people contradicted decisions before and since, and whether that has moved."""
    d, r = tables.decisions.c, tables.reviews.c
    same = and_(d.device == r.device, d.incarnation == r.incarnation, d.seq == r.seq)
    query = (
        select(d.at_ms, d.verdict, d.label, r.answer, r.label.label("named"))
        .join_from(tables.reviews, tables.decisions, same)
        .where(d.device == key[0], d.station == key[1], d.model == key[2])
        .where(d.verdict != "defer", r.answer != "cant_tell")
        .where(or_(d.at_ms >= since_ms, d.at_ms >= since_ms - 4 * WEEK_MS))
        .order_by(r.id.desc())
        .limit(MAX_REVIEWS)
    )
    counts = {False: Counter[str](), True: Counter[str]()}
    for row in connection.execute(query):
        wrong = is_wrong(row.verdict, row.label, row.answer, row.named)
        counts[row.at_ms >= since_ms]["wrong" if wrong else "right"] += 1
    comparison = driftrule.compare_categories(counts[True], counts[False], ALPHA)
    if comparison is None:
        return None, None
    shares = _shares(counts[False], counts[True]).get("wrong", (0.0, 0.0))
    return shares, comparison.differs and shares[1] > shares[0]


def _shares(before: Counter[str], since: Counter[str]) -> Shares:
    if not before.total() or not since.total():
        return {}
    names = sorted({*before, *since}, key=lambda name: -since[name])
    return {name: (before[name] / before.total(), since[name] / since.total()) for name in names}


def _differs(comparison: Comparison | None) -> bool:
    return comparison is not None and comparison.distance >= comparison.threshold


def _watched_on(connection: Connection, model: str, metric: str, against: str) -> int:
    c = drift_states.c
    query = select(c.device).where(c.model == model, c.metric == metric, c.against == against).distinct()
    return len(connection.execute(query).all())
