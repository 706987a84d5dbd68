"""Adds telemetry up by minute, hour and day, each window once, and lets go of what is older than it is to be kept.

Rules:
- A window leaves the queue in the transaction that adds it: whatever happens, it counts once.
- A window may come a month late: it counts in the hour and the day that it belongs to, and in its minute if minutes
  of that age are still kept. One that is older than any is let go, and counted as such.
- What one window holds never stops the others.
- Own rows are removed only if they are added up and their stream's position holds them (see `queue`).
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from cloud import tables
from cloud.clock import Clock
from cloud.config import TelemetryConfig
from cloud.store import CloudStore, insert_ignore
from cloud.telemetry import windows
from cloud.telemetry.tables import (
    health_samples,
    metric_edges,
    metric_points,
    metric_series,
    rollup_marks,
    rollup_queue,
)
from cloud.telemetry.windows import STEPS_S, Amount, Series

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
LATE_MS = 70 * 60_000
"""A window that began so long ago may belong to an hour that others of its device were looked at in."""
MAX_SERIES_OF_DEVICE = 5000
"""A station has about thirty a version; what a device invents beyond so many is left out."""
MAX_KNOWN = 200_000
"""Series whose number is kept in memory."""
REMOVED_AT_ONCE = 2000
"""Rows in one transaction of removal: devices wait for their acknowledgements meanwhile."""
_AT_ONCE = 300
_LOCK_NUMBER = 0x11E5201
"""Of PostgreSQL's advisory lock: points are read, added to and written back, by one copy at a time."""
_QUEUED_OLD = "telemetry_of_older_release_queued"
Key = tuple[int, int, int]
"""Series, step, start."""


@dataclass
class Tally:
    """What was done since the start, for `/metrics`."""

    windows: int = 0
    too_old: int = 0
    unreadable: int = 0
    removed: int = 0


class Rollups:
    """Adds up and lets go. Belongs to one thread at a time."""

    def __init__(self, store: CloudStore, clock: Clock, config: TelemetryConfig) -> None:
        self._store = store
        self._clock = clock
        self._config = config
        self._known: dict[Series, int | None] = {}
        self._prepared = False
        self._late: set[str] = set()
        self.tally = Tally()

    def roll(self) -> int:
        """Add up what waits, at most `roll_rows` windows; return how many there were."""
        try:
            with self._store.write() as connection:
                _one_at_a_time(connection)
                self._prepare(connection)
                added: dict[tuple[Series, int, int], Amount] = {}
                count = self._take_windows(connection, added) + self._take_health(connection, added)
                self._keep(connection, added)
            return count
        except BaseException:
            self._known.clear()  # numbers of series that were not committed
            raise

    def let_go(self) -> int:
        """Remove what is older than it is to be kept, a part in each transaction; return how many rows."""
        now_ms, removed = self._clock.now_ms(), 0
        for step_s in STEPS_S:
            removed += self._until_none(_oldest_points(step_s, now_ms - self._keeps_ms(step_s)))
        c = health_samples.c
        old = select(c.device, c.minute_ms).where(c.minute_ms < now_ms - 2 * DAY_MS, c.rolled.is_(True))
        removed += self._until_none(
            delete(health_samples).where(tuple_(c.device, c.minute_ms).in_(old.limit(REMOVED_AT_ONCE)))
        )
        with self._store.read() as connection:
            devices = list(connection.execute(select(tables.devices.c.device)).scalars())
        for device in devices:
            removed += self._until_none(_oldest_rows(device, now_ms - int(self._config.raw_days * DAY_MS)))
        removed += self._remove_empty_series()
        self.tally.removed += removed
        return removed

    def take_late(self) -> set[str]:
        """Return the devices of which windows of hours long settled were added up since this was last asked."""
        late, self._late = self._late, set()
        return late

    def waiting(self) -> int:
        """Return how many windows wait to be added up."""
        with self._store.read() as connection:
            return int(connection.execute(select(func.count()).select_from(rollup_queue)).scalar_one())

    def _prepare(self, connection: Connection) -> None:
        """Queue once what an older release has kept and nobody has added up."""
        if self._prepared:
            return
        mark = {"name": _QUEUED_OLD, "at_ms": self._clock.now_ms()}
        c, q = tables.telemetry.c, rollup_queue.c
        if insert_ignore(connection, rollup_marks, [mark]):
            waiting = and_(q.device == c.device, q.incarnation == c.incarnation, q.seq == c.seq)
            rows = select(c.device, c.incarnation, c.seq).outerjoin(rollup_queue, waiting).where(q.seq.is_(None))
            connection.execute(insert(rollup_queue).from_select(["device", "incarnation", "seq"], rows))
        self._prepared = True

    def _take_windows(self, connection: Connection, added: dict[tuple[Series, int, int], Amount]) -> int:
        q, t = rollup_queue.c, tables.telemetry.c
        same = and_(t.device == q.device, t.incarnation == q.incarnation, t.seq == q.seq)
        query = (
            select(q.device, q.incarnation, q.seq, t.received_at_ms, t.body)
            .select_from(rollup_queue)
            .outerjoin(tables.telemetry, same)
            .order_by(q.device, q.incarnation, q.seq)
            .limit(self._config.roll_rows)
        )
        rows = connection.execute(query).all()
        for row in rows:
            try:
                at_ms = windows.began_ms(row.body, row.received_at_ms)
                amounts = list(windows.of_window(row.device, row.body))
            except (ValueError, TypeError, KeyError, OverflowError) as error:
                self.tally.unreadable += 1
                log.warning("window %s of %s is in no rollup: %s", row.seq, row.device, error)
                continue
            self._add(added, amounts, at_ms)
            if at_ms < self._clock.now_ms() - LATE_MS:
                self._late.add(row.device)
        keys = [(row.device, row.incarnation, row.seq) for row in rows]
        for some in _chunks(keys):
            connection.execute(delete(rollup_queue).where(tuple_(q.device, q.incarnation, q.seq).in_(some)))
        self.tally.windows += len(rows)
        return len(rows)

    def _take_health(self, connection: Connection, added: dict[tuple[Series, int, int], Amount]) -> int:
        c = health_samples.c
        query = select(c.device, c.minute_ms, c.body).where(c.rolled.is_(False)).limit(self._config.roll_rows)
        rows = connection.execute(query).all()
        for row in rows:
            self._add(added, windows.of_health(row.device, row.body), row.minute_ms)
        for some in _chunks([(row.device, row.minute_ms) for row in rows]):
            mine = tuple_(c.device, c.minute_ms).in_(some)
            connection.execute(health_samples.update().where(mine).values(rolled=True))
        return len(rows)

    def _add(
        self, added: dict[tuple[Series, int, int], Amount], amounts: Iterable[tuple[Series, Amount]], at_ms: int
    ) -> None:
        now_ms = self._clock.now_ms()
        steps = [(step, windows.floor_ms(at_ms, step)) for step in STEPS_S]
        steps = [(step, start) for step, start in steps if start >= now_ms - self._keeps_ms(step)]
        if not steps:
            self.tally.too_old += 1
        for series, amount in amounts:
            for step, start in steps:
                added.setdefault((series, step, start), Amount()).add(amount)

    def _keep(self, connection: Connection, added: dict[tuple[Series, int, int], Amount]) -> None:
        numbers = self._numbers(connection, {series for series, _, _ in added})
        amounts: dict[Key, Amount] = {}
        for (series, step_s, start_ms), amount in added.items():
            number = numbers[series]
            if number is not None:
                amounts[number, step_s, start_ms] = amount
        c = metric_points.c
        for some in _chunks(list(amounts)):
            query = select(metric_points).where(tuple_(c.series, c.step_s, c.start_ms).in_(some))
            for row in connection.execute(query).all():
                bins = None if row.bins is None else Counter(dict(row.bins))
                amounts[row.series, row.step_s, row.start_ms].add(Amount(row.n, bins))
        rows = [
            {"series": key[0], "step_s": key[1], "start_ms": key[2], "n": amount.n, "bins": _pairs(amount)}
            for key, amount in amounts.items()
        ]
        if rows:
            dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
            statement = dialect.insert(metric_points)
            changes = {"n": statement.excluded.n, "bins": statement.excluded.bins}
            keys = ["series", "step_s", "start_ms"]
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), rows)

    def _numbers(self, connection: Connection, wanted: set[Series]) -> dict[Series, int | None]:
        if len(self._known) > MAX_KNOWN:
            self._known.clear()
        for series in wanted - self._known.keys():
            self._known[series] = _number(connection, series)
        return {series: self._known[series] for series in wanted}

    def _keeps_ms(self, step_s: int) -> int:
        return keeps_ms(self._config)[step_s]

    def _until_none(self, statement: Any) -> int:
        total = 0
        while True:
            with self._store.write() as connection:
                removed = max(connection.execute(statement).rowcount, 0)
            total += removed
            if removed < REMOVED_AT_ONCE:
                return total

    def _remove_empty_series(self) -> int:
        s, p = metric_series.c, metric_points.c
        empty = ~select(p.series).where(p.series == s.id).exists()
        with self._store.write() as connection:
            _one_at_a_time(connection)
            removed = connection.execute(delete(metric_series).where(empty)).rowcount
        self._known.clear()
        return max(removed, 0)


def keeps_ms(config: TelemetryConfig) -> dict[int, int]:
    """Return how long the sums of each step (in seconds) are kept."""
    days = {60: config.minute_days, 3600: config.hour_days, 86_400: config.day_days}
    return {step_s: int(many * DAY_MS) for step_s, many in days.items()}


def _one_at_a_time(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK_NUMBER)))


def _number(connection: Connection, series: Series) -> int | None:
    """Return a series' number, made if it has none; None if its device has too many."""
    edges = _edges_number(connection, series.edges) if series.edges else 0
    c = metric_series.c
    mine = and_(
        c.device == series.device,
        c.station == series.station,
        c.model == series.model,
        c.digest == series.digest,
        c.metric == series.metric,
        c.edges == edges,
    )
    number = connection.execute(select(c.id).where(mine)).scalar()
    if number is not None:
        return int(number)
    count = connection.execute(select(func.count()).where(c.device == series.device)).scalar_one()
    if count >= MAX_SERIES_OF_DEVICE:
        log.warning("%s has %d series already; %s is left out", series.device, count, series.metric)
        return None
    insert_ignore(connection, metric_series, [{**series._asdict(), "edges": edges}])
    return int(connection.execute(select(c.id).where(mine)).scalar_one())


def _edges_number(connection: Connection, edges: tuple[float, ...]) -> int:
    digest = windows.edges_digest(edges)
    insert_ignore(connection, metric_edges, [{"digest": digest, "edges": list(edges)}])
    query = select(metric_edges.c.id).where(metric_edges.c.digest == digest)
    return int(connection.execute(query).scalar_one())


def _pairs(amount: Amount) -> list[list[int]] | None:
    return None if amount.bins is None else [[index, count] for index, count in sorted(amount.bins.items())]


def _oldest_points(step_s: int, before_ms: int) -> Any:
    c = metric_points.c
    old = select(c.series, c.step_s, c.start_ms).where(c.step_s == step_s, c.start_ms < before_ms)
    return delete(metric_points).where(tuple_(c.series, c.step_s, c.start_ms).in_(old.limit(REMOVED_AT_ONCE)))


def _oldest_rows(device: str, before_ms: int) -> Any:
    t, s, q = tables.telemetry.c, tables.streams.c, rollup_queue.c
    waits = and_(q.device == t.device, q.incarnation == t.incarnation, q.seq == t.seq)
    old = (
        select(t.device, t.incarnation, t.seq)
        .join_from(tables.telemetry, tables.streams, and_(s.device == t.device, s.incarnation == t.incarnation))
        .outerjoin(rollup_queue, waits)
        .where(t.device == device, t.at_ms < before_ms, t.received_at_ms < before_ms)
        .where(t.seq <= s.stored_through, q.seq.is_(None))
        .limit(REMOVED_AT_ONCE)
    )
    return delete(tables.telemetry).where(tuple_(t.device, t.incarnation, t.seq).in_(old))


def _chunks(keys: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(keys), _AT_ONCE):
        yield keys[start : start + _AT_ONCE]
