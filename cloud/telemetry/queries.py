"""Answers what a metric was: over time, by device, site, version, station or stage, from merged sketches.

Rules:
- Any points of a metric may be added up, whatever devices, versions and bins they have (see `sketches`).
- Each percentile comes with the bounds that are certain; for latencies and a device's own figures they lie at most
  19 % apart.
- The answer is bounded: who asks for too much is told to ask for longer steps or less time.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Select, distinct, func, select

from cloud import tables
from cloud.errors import InvalidError, NotFoundError
from cloud.telemetry.sketches import Mixture
from cloud.telemetry.stages import floor_of, unit_of
from cloud.telemetry.tables import metric_edges, metric_points, metric_series
from cloud.telemetry.windows import STEPS_S, floor_ms

By = Literal["device", "site", "version", "station", "stage", "model"]
BYS: tuple[By, ...] = get_args(By)
SHARES = (0.5, 0.95, 0.99)
MAX_POINTS_READ = 200_000
MAX_POINTS_OUT = 20_000
MAX_STEPS = 400
"""Of a chart: the step is chosen so that no more are shown."""
TOTAL = "decisions"
"""The count that shares of other counts are taken of."""


@dataclass(frozen=True)
class Question:
    """What is asked for; None stands for any."""

    metric: str
    from_ms: int
    to_ms: int
    device: str | None = None
    site: str | None = None
    model: str | None = None
    version: str | None = None
    station: str | None = None
    stage: str | None = None
    by: tuple[By, ...] = ()
    step_s: int | None = None
    """None for the shortest one that gives a readable number of points."""
    shares: tuple[float, ...] = SHARES


@dataclass
class Sum:
    """What one group counted in one step."""

    count: int = 0
    mixture: Mixture = field(default_factory=Mixture)
    of: int = 0
    """Decisions in the same step, of a count's share."""

    def as_json(self, metric: str, shares: Iterable[float]) -> dict[str, Any]:
        """Return it as a document for machines."""
        if not self.mixture.parts:
            share = self.count / self.of if self.of and metric != TOTAL else None
            return {"count": self.count, "of": self.of or None, "share": share}
        found = {share: self.mixture.percentile(share, floor=floor_of(metric)) for share in shares}
        return {
            "count": self.mixture.total,
            "percentiles": {f"{100 * share:g}": p.__dict__ for share, p in found.items() if p is not None},
        }


def metrics(connection: Connection, *, stage: str | None = None, device: str | None = None) -> list[dict[str, Any]]:
    """Return which metrics there are, by stage and name."""
    c = metric_series.c
    query = (
        select(
            c.metric,
            c.stage,
            func.max(c.edges).label("edges"),
            func.count(distinct(c.device)).label("devices"),
            func.count(distinct(c.digest)).label("versions"),
        )
        .group_by(c.metric, c.stage)
        .order_by(c.stage, c.metric)
    )
    query = query if stage is None else query.where(c.stage == stage)
    query = query if device is None else query.where(c.device == device)
    return [
        {
            "metric": row.metric,
            "stage": row.stage,
            "kind": "distribution" if row.edges else "count",
            "unit": unit_of(row.metric),
            "devices": row.devices,
            "versions": row.versions,
        }
        for row in connection.execute(query)
    ]


def ask(connection: Connection, question: Question, *, keeps_ms: dict[int, int], now_ms: int) -> dict[str, Any]:
    """Return the answer: groups, each with its points over time and its total.

    Args:
        connection: one that reads.
        question: what is asked for.
        keeps_ms: how long the sums of each step are kept.
        now_ms: the present moment.

    Raises:
        InvalidError: the question is upside down, or its answer too large.
        NotFoundError: nobody has ever sent this metric.
    """
    _check(question)
    step_s = question.step_s or _readable_step(question, keeps_ms, now_ms)
    _known(connection, question.metric)
    sums = _sums(connection, question, question.metric, step_s)
    if not any(one.mixture.parts for one in sums.values()) and question.metric != TOTAL:
        for key, total in _sums(connection, question, TOTAL, step_s).items():
            sums.setdefault(key, Sum()).of = total.count
    if len(sums) > MAX_POINTS_OUT:
        raise InvalidError(f"the answer has {len(sums)} points, {MAX_POINTS_OUT} at most", hint="ask for a longer step")
    return {
        "metric": question.metric,
        "unit": unit_of(question.metric),
        "step_s": step_s,
        "from_ms": floor_ms(question.from_ms, step_s),
        "to_ms": question.to_ms,
        "by": list(question.by),
        "bounds": "of every percentile, low ≤ it < high is certain",
        "groups": _groups(question, sums),
    }


def _check(question: Question) -> None:
    if question.from_ms >= question.to_ms:
        raise InvalidError("from must be before to")
    if question.step_s not in (None, *STEPS_S):
        raise InvalidError(f"step: expected one of {', '.join(map(str, STEPS_S))} seconds, got {question.step_s}")
    unknown = [by for by in question.by if by not in BYS]
    if unknown:
        raise InvalidError(f"by: expected some of {', '.join(BYS)}, got {unknown[0]!r}")
    if not all(0 < share <= 1 for share in question.shares):
        raise InvalidError("percentiles: expected numbers above 0, up to 100")


def _readable_step(question: Question, keeps_ms: dict[int, int], now_ms: int) -> int:
    span_s = (question.to_ms - question.from_ms) / 1000
    for step_s in STEPS_S:
        if span_s / step_s <= MAX_STEPS and question.from_ms >= now_ms - keeps_ms[step_s]:
            return step_s
    return STEPS_S[-1]


def _known(connection: Connection, metric: str) -> None:
    if connection.execute(select(metric_series.c.id).where(metric_series.c.metric == metric).limit(1)).first() is None:
        raise NotFoundError(f"no device has sent {metric!r}", hint="`lineside-cloud metrics list` names all")


def _sums(connection: Connection, question: Question, metric: str, step_s: int) -> dict[tuple[Any, ...], Sum]:
    """Return the sums by group and step; the last part of a key is the start of the step."""
    edges: dict[int, list[float]] = {}
    sums: dict[tuple[Any, ...], Sum] = {}
    rows = connection.execute(_query(question, metric, step_s).limit(MAX_POINTS_READ + 1)).all()
    if len(rows) > MAX_POINTS_READ:
        raise InvalidError(
            f"this needs more than {MAX_POINTS_READ} points", hint="ask for a longer step, less time or fewer devices"
        )
    for row in rows:
        one = sums.setdefault((*(getattr(row, by) for by in question.by), row.start_ms), Sum())
        if row.edges == 0:
            one.count += row.n
            continue
        if row.edges not in edges:
            query = select(metric_edges.c.edges).where(metric_edges.c.id == row.edges)
            edges[row.edges] = connection.execute(query).scalar_one()
        one.mixture.add(edges[row.edges], Counter(dict(row.bins)))
    return sums


def _query(question: Question, metric: str, step_s: int) -> Select[Any]:
    s, p, d = metric_series.c, metric_points.c, tables.devices.c
    query = (
        select(s.device, d.site, s.version, s.station, s.stage, s.model, s.edges, p.start_ms, p.n, p.bins)
        .select_from(metric_series)
        .join(metric_points, p.series == s.id)
        .join(tables.devices, d.device == s.device)
        .where(s.metric == metric, p.step_s == step_s)
        .where(p.start_ms >= floor_ms(question.from_ms, step_s), p.start_ms < question.to_ms)
        .order_by(p.start_ms, s.id)
    )
    filters = {"device": s.device, "model": s.model, "version": s.version, "station": s.station, "site": d.site}
    if metric == question.metric:  # a share's whole is counted at another stage
        filters["stage"] = s.stage
    for name, column in filters.items():
        wanted = getattr(question, name)
        query = query if wanted is None else query.where(column == wanted)
    return query


def _groups(question: Question, sums: dict[tuple[Any, ...], Sum]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[tuple[int, Sum]]] = {}
    for (*key, start_ms), one in sorted(sums.items(), key=lambda item: tuple(str(part) for part in item[0])):
        groups.setdefault(tuple(key), []).append((start_ms, one))
    return [
        {
            **dict(zip(question.by, key, strict=True)),
            "total": _total(points).as_json(question.metric, question.shares),
            "points": [
                {"at_ms": start_ms, **one.as_json(question.metric, question.shares)} for start_ms, one in points
            ],
        }
        for key, points in groups.items()
    ]


def _total(points: Sequence[tuple[int, Sum]]) -> Sum:
    total = Sum()
    for _, one in points:
        total.count += one.count
        total.of += one.of
        total.mixture.update(one.mixture)
    return total
