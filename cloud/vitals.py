"""What the control plane measures of itself: one list of figures, for Prometheus and for OpenTelemetry.

Rules:
- Counters only grow while the process runs and begin at 0 with it; gauges are read when they are asked for.
- Names and units follow Prometheus: base units, `_total` for counters (added by what writes them out).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Table, func, select

from cloud import tables
from cloud.alerts.tables import alert_deliveries, alerts
from cloud.authorities import count_behind
from cloud.clock import Clock
from cloud.fleet import Fleet
from cloud.ingest import Ingest
from cloud.retraining.tables import retrainings
from cloud.store import CloudStore
from cloud.telemetry.rollups import Rollups
from cloud.telemetry.tables import drift_states, rollup_queue

PREFIX = "lineside_cloud_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Figure:
    """One figure with its values by label."""

    name: str
    """Without prefix and suffix."""
    kind: Literal["counter", "gauge"]
    words: str
    label: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    """Of each value of the label; under the empty one where there is no label."""


class Vitals:
    """Measures a running control plane."""

    def __init__(self, store: CloudStore, clock: Clock, fleet: Fleet, ingest: Ingest, rollups: Rollups) -> None:
        self._store = store
        self.clock = clock
        self._fleet = fleet
        self._ingest = ingest
        self._rollups = rollups

    def figures(self) -> Iterator[Figure]:
        """Give every figure as it is now."""
        yield from self._of_ingest()
        yield from self._of_rollups()
        states = Counter(device.freshness for device in self._fleet.devices())
        by_state = {state: float(states[state]) for state in ("fresh", "stale", "unknown")}
        yield Figure("devices", "gauge", "devices of the fleet", "state", by_state)
        with self._store.read() as connection:
            yield from self._of_tables(connection)

    def exposition(self) -> bytes:
        """Return all of it in Prometheus' text format, with the process's own figures."""
        registry = CollectorRegistry()
        registry.register(_Collector(self.figures()))
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    def _of_ingest(self) -> Iterator[Figure]:
        tally = self._ingest.tally
        for name, words, value in (
            ("ingest_messages", "messages taken from the broker", tally.messages),
            (
                "ingest_dropped",
                "messages dropped because too many waited; their devices send them again",
                tally.dropped,
            ),
            ("ingest_quarantined", "messages and rows put aside with their reason", tally.quarantined),
            ("ingest_commits", "groups of messages that were committed", tally.commits),
            ("ingest_commit_seconds", "time that took", tally.commit_s),
        ):
            yield Figure(name, "counter", words, values={"": float(value)})
        rows = {kind: float(count) for kind, count in sorted(tally.rows.items())}
        yield Figure("ingest_rows", "counter", "rows in committed messages, repeated ones too", "kind", rows)
        yield _gauge("ingest_waiting", "messages that wait to be committed", self._ingest.waiting())

    def _of_rollups(self) -> Iterator[Figure]:
        tally = self._rollups.tally
        for name, words, value in (
            ("rollup_windows", "telemetry windows added up", tally.windows),
            ("rollup_too_old", "windows older than anything that is kept", tally.too_old),
            ("rollup_unreadable", "windows that could not be added up", tally.unreadable),
            ("rollup_removed", "rows removed for their age", tally.removed),
        ):
            yield Figure(name, "counter", words, values={"": float(value)})

    def _of_tables(self, connection: Connection) -> Iterator[Figure]:
        d, now_ms = tables.decisions.c, self.clock.now_ms()
        waiting, oldest = connection.execute(
            select(func.count(), func.min(d.at_ms)).where(d.needs_review.is_(True))
        ).one()
        yield _gauge("review_waiting", "decisions that wait for a person", waiting)
        yield _gauge("review_oldest_seconds", "age of the oldest", (now_ms - oldest) / 1000 if waiting else 0)
        yield _gauge("rollup_waiting", "windows that wait to be added up", _count(connection, rollup_queue))
        drifts = select(func.count()).where(drift_states.c.drifting.is_(True))
        yield _gauge("drifting_metrics", "metrics of stations that drift", connection.execute(drifts).scalar_one())
        a = alerts.c
        firing = connection.execute(select(a.severity, func.count()).where(a.state == "firing").group_by(a.severity))
        by_severity = {"info": 0.0, "warning": 0.0, "alarm": 0.0} | {row[0]: float(row[1]) for row in firing}
        yield Figure("alerts_firing", "gauge", "alerts that fire", "severity", by_severity)
        unsent = select(func.count()).where(alert_deliveries.c.next_ms.is_not(None))
        yield _gauge("alerts_untold", "notices that were not taken yet", connection.execute(unsent).scalar_one())
        behind = count_behind(connection)
        yield _gauge("authority_behind_devices", "devices that do not know the next authority yet", behind)
        for table, column, name in (
            (retrainings, retrainings.c.state, "retrainings"),
            (tables.rollouts, tables.rollouts.c.status, "rollouts"),
        ):
            rows = connection.execute(select(column, func.count()).select_from(table).group_by(column))
            yield Figure(name, "gauge", f"{name} by state", "state", {row[0]: float(row[1]) for row in rows})


class _Collector(Collector):
    def __init__(self, figures: Iterable[Figure]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        for figure in self._figures:
            family = CounterMetricFamily if figure.kind == "counter" else GaugeMetricFamily
            metric = family(PREFIX + figure.name, figure.words, labels=[figure.label] if figure.label else [])
            for label, value in figure.values.items():
                metric.add_metric([label] if figure.label else [], value)
            yield metric


def _gauge(name: str, words: str, value: float) -> Figure:
    return Figure(name, "gauge", words, values={"": float(value)})


def _count(connection: Connection, table: Table) -> int:
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
