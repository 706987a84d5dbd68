"""Looks at each hour of every station once, against the bundle's reference and the device's own first week.

Rules:
- An hour is looked at when it is over and settled: a later one has begun to arrive, or nothing more is to be expected.
  So the backlog of a device that was away is looked at hour by hour as well.
- Against the bundle's reference each hour is compared; against the own first week the last 24 hours, so that night and
  day are no drift.
- The first week is the seven days after the first hour of a metric with these bins; once over, it is kept for good.
- A new bundle begins anew against its reference; what is compared no more drifts no more.
- What is heard of a stopped look is committed device by device: the next look goes on where it stopped.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from cloud import tables
from cloud.clock import Clock
from cloud.config import DriftConfig
from cloud.store import CloudStore, insert_ignore, upsert
from cloud.telemetry import driftrule
from cloud.telemetry.driftrule import Against, Comparison, State
from cloud.telemetry.sketches import dense
from cloud.telemetry.tables import (
    drift_baselines,
    drift_cursors,
    drift_states,
    metric_edges,
    metric_points,
    metric_series,
)
from cloud.telemetry.windows import floor_ms
from edge.wire.rows import Histogram

log = logging.getLogger(__name__)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WEEK_MS = 7 * DAY_MS
SETTLE_MS = 10 * 60_000
"""After an hour's end its last windows are on their way for so long."""
CATCH_UP_MS = 60 * DAY_MS
"""A station that was never looked at is looked at from no longer ago."""
MAX_REFERENCES = 64
INPUT_STAGES = ("camera", "gate", "microphone", "vad")
CATEGORIES = {"labels": "label.", "verdicts": "verdict."}
"""Counts that are compared as one metric of several categories, with the beginning of their names."""

Place = tuple[str, str]
"""Station and model."""
Stream = tuple[str, int]
"""Metric and number of its edges; 0 for categories."""


@dataclass
class Hour:
    """What a station counted in one hour."""

    streams: dict[Stream, Counter[Any]] = field(default_factory=dict)
    by_digest: dict[str, dict[Stream, Counter[Any]]] = field(default_factory=dict)
    stages: dict[str, str] = field(default_factory=dict)

    def add(self, digest: str, stage: str, stream: Stream, bins: Counter[Any]) -> None:
        """Count some more."""
        self.stages[stream[0]] = stage
        for place in (self.streams, self.by_digest.setdefault(digest, {})):
            place.setdefault(stream, Counter()).update(bins)


@dataclass
class Station:
    """What is known of one station of a device while it is looked at."""

    device: str
    place: Place
    hours: dict[int, Hour]
    baselines: dict[Stream, Any]
    states: dict[tuple[str, str], dict[str, Any]]
    changed: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)


class DriftWatch:
    """Looks at stations. Belongs to one thread at a time."""

    def __init__(self, store: CloudStore, clock: Clock, config: DriftConfig) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._references: dict[str, dict[str, Histogram]] = {}
        self._edges: dict[int, list[float]] = {}

    def look(self, devices: Iterable[str] | None = None) -> int:
        """Look at every hour of these devices (or of all) that was not looked at; return how many hours."""
        if devices is None:
            with self._store.read() as connection:
                query = select(tables.devices.c.device).where(tables.devices.c.revoked_at_ms.is_(None))
                devices = list(connection.execute(query).scalars())
        return sum(self._look_at(device) for device in devices)

    def _look_at(self, device: str) -> int:
        last_ms = floor_ms(self._clock.now_ms() - SETTLE_MS, 3600) - HOUR_MS
        with self._store.read() as connection:
            cursors = _cursors(connection, device, last_ms - CATCH_UP_MS)
            stations = _stations(connection, device, cursors)
        looked = 0
        for place, station in stations.items():
            due = _due(station.hours, cursors.get(place, 0), last_ms)
            if not due:
                continue
            with self._store.write() as connection:
                self._begin_weeks(connection, station)
                for hour_ms in due:
                    self._freeze_weeks(connection, station, hour_ms)
                    self._look_at_hour(connection, station, hour_ms)
                for row in station.changed.values():
                    upsert(connection, drift_states, row)
                row = {"device": device, "station": place[0], "model": place[1], "hour_ms": due[-1]}
                upsert(connection, drift_cursors, row)
            looked += len(due)
        return looked

    def _begin_weeks(self, connection: Connection, station: Station) -> None:
        for hour_ms in sorted(station.hours):
            for metric, edges in station.hours[hour_ms].streams:
                if (metric, edges) not in station.baselines:
                    key = _key(station, metric) | {"edges": edges}
                    row: dict[str, Any] = {**key, "from_ms": hour_ms, "frozen": False, "bins": []}
                    insert_ignore(connection, drift_baselines, [row])
                    station.baselines[metric, edges] = row

    def _freeze_weeks(self, connection: Connection, station: Station, hour_ms: int) -> None:
        for (metric, edges), row in station.baselines.items():
            if not row["frozen"] and hour_ms >= row["from_ms"] + WEEK_MS:
                bins = _week(connection, station, metric, edges, row["from_ms"])
                frozen = {**row, "frozen": True, "bins": [[name, count] for name, count in sorted(bins.items())]}
                upsert(connection, drift_baselines, frozen)
                station.baselines[metric, edges] = frozen

    def _look_at_hour(self, connection: Connection, station: Station, hour_ms: int) -> None:
        hour = station.hours[hour_ms]
        digest = max(hour.by_digest, key=lambda one: sum(bins.total() for bins in hour.by_digest[one].values()))
        references = self._reference(connection, digest)
        frozen = {stream: row for stream, row in station.baselines.items() if row["frozen"] and stream in hour.streams}
        compared: set[tuple[str, str]] = set()
        alpha = driftrule.alpha_of(self._config.false_alarms_per_year, len(references) + len(station.baselines))
        for (metric, edges), now in hour.by_digest[digest].items():
            reference = references.get(metric)
            if edges and reference is not None and self._edges_of(connection, edges) == reference.edges:
                compared.add((metric, "bundle"))
                self._compare(
                    station, hour_ms, digest, "bundle", (metric, reference.edges), now, _bins(reference), alpha
                )
        for (metric, edges), row in frozen.items():
            compared.add((metric, "first_week"))
            now = _last_day(station.hours, hour_ms, (metric, edges))
            shown = self._edges_of(connection, edges) if edges else []
            then = driftrule.totals(row["bins"])
            self._compare(station, hour_ms, digest, "first_week", (metric, shown), now, then, alpha)
        self._end_others(station, hour_ms, digest, compared)

    def _compare(
        self,
        station: Station,
        hour_ms: int,
        digest: str,
        against: Against,
        stream: tuple[str, list[float]],
        now: Counter[Any],
        then: Counter[Any],
        alpha: float,
    ) -> None:
        metric, edges = stream
        before = station.states.get((metric, against), {})
        if against == "bundle" and before.get("digest") not in (None, digest):
            before = {}
        comparison = _comparison(edges, now, then, alpha, self._config.repeat)
        if comparison is None:
            return
        state = driftrule.step(_state(before), comparison, hour_ms)
        medians = _medians(edges, now, then)
        words = driftrule.in_words(metric, comparison, against, medians) if state.drifting else ""
        if state.drifting != bool(before.get("drifting")):
            log.warning(
                "%s, %s: drift %s: %s", station.device, station.place[0], _said(state.drifting), words or metric
            )
        row = {
            **_key(station, metric),
            "against": against,
            "stage": station.hours[hour_ms].stages.get(metric, "decision"),
            "digest": digest,
            **{name: getattr(state, name) for name in ("drifting", "agreeing", "since_ms", "began_ms")},
            "looked_through_ms": hour_ms,
            "distance": comparison.distance,
            "threshold": max(comparison.threshold, driftrule.MIN_DISTANCE),
            "n": comparison.n,
            "median": medians[0] if medians else None,
            "reference_median": medians[1] if medians else None,
            "words": words,
            "updated_at_ms": self._clock.now_ms(),
        }
        station.states[metric, against] = station.changed[metric, against] = row

    def _end_others(self, station: Station, hour_ms: int, digest: str, compared: set[tuple[str, str]]) -> None:
        for key, row in list(station.states.items()):
            metric_is_here = any(metric == key[0] for metric, _ in station.hours[hour_ms].streams)
            gone = row["drifting"] and key not in compared and (metric_is_here or row["digest"] != digest)
            if gone:
                ended = {"drifting": False, "agreeing": 0, "since_ms": None, "began_ms": None, "words": ""}
                station.states[key] = station.changed[key] = {**row, **ended, "digest": digest}

    def _reference(self, connection: Connection, digest: str) -> dict[str, Histogram]:
        if digest not in self._references:
            found = connection.execute(
                select(tables.bundles.c.manifest["reference"]).where(tables.bundles.c.digest == digest)
            ).scalar()
            if found is None:
                return {}  # not published here, or not yet
            while len(self._references) >= MAX_REFERENCES:
                del self._references[next(iter(self._references))]
            self._references[digest] = {name: Histogram.model_validate(body) for name, body in found.items()}
        return self._references[digest]

    def _edges_of(self, connection: Connection, number: int) -> list[float]:
        if number not in self._edges:
            query = select(metric_edges.c.edges).where(metric_edges.c.id == number)
            self._edges[number] = list(connection.execute(query).scalar_one())
        return self._edges[number]


def _cursors(connection: Connection, device: str, oldest_ms: int) -> dict[Place, int]:
    c, s = drift_cursors.c, metric_series.c
    places = connection.execute(select(s.station, s.model).where(s.device == device, s.station != "").distinct())
    found = {(row.station, row.model): oldest_ms for row in places}
    rows = connection.execute(select(c.station, c.model, c.hour_ms).where(c.device == device))
    return found | {(row.station, row.model): row.hour_ms for row in rows}


def _stations(connection: Connection, device: str, cursors: Mapping[Place, int]) -> dict[Place, Station]:
    """Return the stations of a device with the hours since they were looked at, and the day before."""
    if not cursors:
        return {}
    stations: dict[Place, Station] = {}
    s, p = metric_series.c, metric_points.c
    query = (
        select(s.station, s.model, s.digest, s.stage, s.metric, s.edges, p.start_ms, p.n, p.bins)
        .join(metric_points, p.series == s.id)
        .where(s.device == device, s.station != "", _watched(), p.step_s == 3600)
        .where(p.start_ms > min(cursors.values()) - DAY_MS)
    )
    for row in connection.execute(query):
        place = (row.station, row.model)
        station = stations.setdefault(place, Station(device, place, {}, {}, {}))
        stream, bins = _stream(row.metric, row.edges, row.n, row.bins)
        station.hours.setdefault(row.start_ms, Hour()).add(row.digest, row.stage, stream, bins)
    for kept, name in ((drift_baselines, "baselines"), (drift_states, "states")):
        for body in connection.execute(select(kept).where(kept.c.device == device)).mappings():
            found = stations.get((body["station"], body["model"]))
            if found is not None:
                second = "edges" if name == "baselines" else "against"
                getattr(found, name)[body["metric"], body[second]] = dict(body)
    return stations


def _watched() -> Any:
    s = metric_series.c
    counts = or_(*(s.metric.like(f"{prefix}%") for prefix in CATEGORIES.values()))
    return or_(and_(s.edges != 0, s.metric.not_like("latency_ms.%")), and_(s.edges == 0, counts))


def _stream(metric: str, edges: int, n: int, bins: Any) -> tuple[Stream, Counter[Any]]:
    if edges:
        return (metric, edges), Counter(dict(bins))
    name, prefix = next((name, prefix) for name, prefix in CATEGORIES.items() if metric.startswith(prefix))
    return (name, 0), Counter({metric.removeprefix(prefix): n})


def _due(hours: Mapping[int, Hour], cursor_ms: int, last_ms: int) -> list[int]:
    due = sorted(hour_ms for hour_ms in hours if cursor_ms < hour_ms <= last_ms)
    # The newest hour of a backlog may still be arriving.
    return due if not due or due[-1] == last_ms or max(hours) > due[-1] else due[:-1]


def _week(connection: Connection, station: Station, metric: str, edges: int, from_ms: int) -> Counter[Any]:
    s, p = metric_series.c, metric_points.c
    mine = and_(s.device == station.device, s.station == station.place[0], s.model == station.place[1])
    which = s.metric == metric if edges else s.metric.like(f"{CATEGORIES[metric]}%")
    query = (
        select(s.metric, p.n, p.bins)
        .join(metric_points, p.series == s.id)
        .where(mine, which, s.edges == edges, p.step_s == 3600)
        .where(p.start_ms >= from_ms, p.start_ms < from_ms + WEEK_MS)
    )
    total: Counter[Any] = Counter()
    for row in connection.execute(query):
        total.update(_stream(row.metric, edges, row.n, row.bins)[1])
    return total


def _last_day(hours: Mapping[int, Hour], hour_ms: int, stream: Stream) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for start_ms in range(hour_ms - DAY_MS + HOUR_MS, hour_ms + 1, HOUR_MS):
        if start_ms in hours:
            total.update(hours[start_ms].streams.get(stream, {}))
    return total


def _comparison(
    edges: list[float], now: Counter[Any], then: Counter[Any], alpha: float, repeat: float
) -> Comparison | None:
    if not edges:
        return driftrule.compare_categories(now, then, alpha, repeat)
    size = len(edges) + 1
    return driftrule.compare_bins(dense(now, size), dense(then, size), alpha, repeat)


def _medians(edges: list[float], now: Counter[Any], then: Counter[Any]) -> tuple[float, float] | None:
    if not edges:
        return None
    size = len(edges) + 1
    return driftrule.median(edges, dense(now, size)), driftrule.median(edges, dense(then, size))


def _state(row: Mapping[str, Any]) -> State:
    if not row:
        return State()
    names = ("drifting", "agreeing", "since_ms", "began_ms", "looked_through_ms")
    return State(**{name: row[name] for name in names})


def _key(station: Station, metric: str) -> dict[str, str]:
    return {"device": station.device, "station": station.place[0], "model": station.place[1], "metric": metric}


def _bins(histogram: Histogram) -> Counter[int]:
    return Counter(dict(enumerate(histogram.counts)))


def _said(drifting: bool) -> str:  # noqa: FBT001  (a word for a flag)
    return "raised" if drifting else "cleared"


def streams_watched(connection: Connection) -> int:
    """Return how many comparisons are made each hour."""
    return int(connection.execute(select(func.count()).select_from(drift_states)).scalar_one())


def drifting(connection: Connection, device: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Give what drifts now, what moved furthest first."""
    query = select(drift_states).where(drift_states.c.drifting.is_(True)).order_by(drift_states.c.distance.desc())
    query = query if device is None else query.where(drift_states.c.device == device)
    for row in connection.execute(query.limit(5000)).mappings():
        yield dict(row)
