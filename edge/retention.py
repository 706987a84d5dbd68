"""Keeps the record within its limits, dropping what hurts least first.

Rules:
- Each kept input goes when its station's time for it is over, whatever else there is room for.
- Beyond a limit of bytes this goes, in this order, until it is enough: damaged predecessors that were set aside; kept
  inputs that the control plane has; rows that it has stored, all but `LAST_ROWS`; then what only this device has, in
  the order of `drop_first`: telemetry, inputs of confident decisions, of disagreements, of deferrals.
- An unsent decision, outcome or event is never dropped, whatever the limits say; that they alone are too much is told.
- When the disk itself is nearly full, only `LAST_ROWS` stored rows and no uploaded inputs are kept, and then what only
  this device has goes in the same order, until decisions have room inside the file. A reserve beside it gives the room
  that deleting itself needs.
- Work is cut into short transactions, so that a decision never waits long for it.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.connection import Connection
from edge.dropping import Pruned, drop_expired, drop_inputs, drop_rows, empty_telemetry, everything, order_of
from edge.errors import StoreError
from edge.setaside import damaged_copies
from edge.wear import DROP_FIRST, Droppable

SLACK = 1.1
"""Nothing is dropped until a limit is passed by a tenth: seldom and much, instead of always and little."""
DAY_MS = 86_400_000
LAST_ROWS = 1000
"""Stored rows kept when the disk is nearly full, for `log` and `replay`."""
VACUUM_PAGES = 500
"""Free pages given back to the disk in one go, 2 MB."""
MAX_VACUUMS = 100
"""At once: what is still too large then gets smaller with the next round."""
EMPTIED_BUSY_MS = 100
"""Longest wait for readers of the write-ahead log when it is emptied: a decision waits behind it."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much of what may be kept; unsent decisions are above every limit."""

    rows: int = 200_000
    """Stored rows kept for `log` and `replay`; about 200 MB, and a day at two decisions a second."""
    unsent_telemetry_rows: int = 20_000
    """Two weeks of one station's minutes; older ones are emptied, leaving their number and a note."""
    input_bytes: int = 1024**3
    """Kept inputs: some ten thousand pictures."""
    input_age_days: float | None = None
    """Kept inputs older than this are dropped, sent or not; None for no limit."""
    row_age_days: float | None = None
    """Stored rows older than this are dropped; None for no limit."""
    seen_keys: int = 500_000
    """Inputs of a source known as decided; a folder with more files than this would be read again."""
    upload_refusals: int = 5
    """How often the control plane may refuse an input before it is put aside."""
    low_disk_bytes: int = 32 * 1024**2
    """With less than this free, the disk counts as nearly full."""
    reserve_bytes: int = 8 * 1024**2
    """Kept for the moment when the disk is full: twice what the write-ahead log grows to before it is emptied."""
    total_bytes: int | None = None
    """The record with everything in it and its damaged predecessors, without the log of 4 MB beside it; None for no
    limit."""
    keep_days: Mapping[str, float | None] = field(default_factory=dict)
    """By station: its kept inputs older than this are dropped, sent or not; None for no limit of its own."""
    drop_first: tuple[Droppable, ...] = DROP_FIRST
    """What goes first when something has to go that only this device has."""


def prune(connection: Connection, limits: StoreLimits, now_ms: int) -> Pruned:
    """Drop what is beyond the limits.

    Args:
        connection: the record.
        limits: how much may be kept, and for how long.
        now_ms: the wall clock.

    Raises:
        StoreError: the disk does not even let things be deleted.
    """
    reserve = connection.path.with_name(f"{connection.path.name}.reserve")
    free = shutil.disk_usage(connection.path.parent).free
    full = free < limits.low_disk_bytes
    if full:
        reserve.unlink(missing_ok=True)
        connection.all("PRAGMA wal_checkpoint(TRUNCATE)")
    dropped = Pruned()
    _expired(connection, limits, now_ms, dropped)
    _stored_rows(connection, min(limits.rows, LAST_ROWS) if full else limits.rows, dropped)
    if limits.row_age_days is not None:
        _old_rows(connection, now_ms - round(limits.row_age_days * DAY_MS), dropped)
    _inputs(connection, limits, dropped, drop_uploaded=full)
    _telemetry(connection, limits.unsent_telemetry_rows, dropped)
    _seen(connection, limits.seen_keys, dropped)
    now_free = shutil.disk_usage(connection.path.parent).free
    _make_room(connection, limits, dropped, free_bytes=now_free if full else None)
    if dropped.any and not full:
        _give_back(connection, limits)
    connection.all(f"PRAGMA wal_checkpoint({'TRUNCATE' if full else 'PASSIVE'})")
    if not reserve.exists() and free > limits.low_disk_bytes + limits.reserve_bytes:
        _make_reserve(reserve, limits.reserve_bytes)
    return dropped


def _expired(connection: Connection, limits: StoreLimits, now_ms: int, dropped: Pruned) -> None:
    # What a promise about time stands behind is overwritten, not only freed.
    with connection.overwriting():
        for station, own in limits.keep_days.items():
            days = _shorter(own, limits.input_age_days)
            if days is not None:
                drop_expired(connection, [station], now_ms - round(days * DAY_MS), dropped)
        # Of a station that nobody knows any more, as short as the shortest.
        shortest = _shorter(*limits.keep_days.values(), limits.input_age_days)
        if shortest is not None:
            drop_expired(connection, limits.keep_days, now_ms - round(shortest * DAY_MS), dropped, others=True)
    if dropped.expired_inputs:
        connection.empty_log(EMPTIED_BUSY_MS)
    if shortest is None:
        return
    for copy in damaged_copies(connection.path):
        if copy.set_aside_ms < now_ms - round(shortest * DAY_MS):
            copy.erase()
            dropped.damaged_copies += 1


def _shorter(*days: float | None) -> float | None:
    return min((number for number in days if number is not None), default=None)


def _stored_rows(connection: Connection, keep: int, dropped: Pruned) -> None:
    first = connection.one("SELECT min(seq) FROM rows")
    last = connection.one("SELECT max(seq) FROM rows")
    if first is None or last - first + 1 <= keep * SLACK:
        return
    drop_rows(connection, first, last - max(keep, 1), dropped)


def _old_rows(connection: Connection, until_ms: int, dropped: Pruned) -> None:
    first = connection.one("SELECT min(seq) FROM rows")
    last = connection.one("SELECT max(seq) FROM rows")
    # Up to the first row that is young enough: a clock that jumped back leaves old stamps behind young ones.
    young = connection.one("SELECT seq FROM rows WHERE at_ms >= ? ORDER BY seq LIMIT 1", until_ms)
    if first is not None:
        drop_rows(connection, first, last - 1 if young is None else young - 1, dropped)


def _inputs(connection: Connection, limits: StoreLimits, dropped: Pruned, *, drop_uploaded: bool) -> None:
    order = order_of(limits.drop_first)
    if drop_uploaded:
        drop_inputs(connection, order, dropped, everything, uploaded=True)
    total = connection.one("SELECT coalesce(sum(size_bytes), 0) FROM inputs")
    if total <= limits.input_bytes * SLACK:
        return
    goal = dropped.input_bytes + total - limits.input_bytes
    for uploaded in (True, False):
        drop_inputs(connection, order, dropped, lambda: goal - dropped.input_bytes, uploaded=uploaded)


def _telemetry(connection: Connection, keep: int, dropped: Pruned) -> None:
    unsent = "kind = 'telemetry' AND seq > (SELECT stored_through FROM state)"
    count = connection.one(f"SELECT count(*) FROM rows WHERE {unsent}")  # noqa: S608 - a constant
    if count > keep * SLACK:
        empty_telemetry(connection, count - keep, dropped)


def _seen(connection: Connection, keep: int, dropped: Pruned) -> None:
    count = connection.one("SELECT count(*) FROM seen")
    if count <= keep * SLACK:
        return
    until = connection.one("SELECT seq FROM seen ORDER BY seq DESC LIMIT 1 OFFSET ?", keep)
    with connection.write:
        dropped.seen_keys = connection.execute("DELETE FROM seen WHERE seq <= ?", (until,)).rowcount


def _make_room(connection: Connection, limits: StoreLimits, dropped: Pruned, *, free_bytes: int | None) -> None:
    """Drop until the record is within its bytes, and a disk that is nearly full has room for decisions in the file."""

    def over() -> int:
        total = connection.used_bytes() + sum(copy.size_bytes for copy in damaged_copies(connection.path))
        return 0 if limits.total_bytes is None else total - limits.total_bytes

    def excess() -> float:
        lacking = 0 if free_bytes is None else limits.low_disk_bytes - free_bytes - connection.unused_bytes()
        return max(over(), lacking)

    if excess() <= (0 if free_bytes is not None else (limits.total_bytes or 0) * (SLACK - 1)):
        return
    for copy in damaged_copies(connection.path):
        if excess() > 0:
            copy.erase()
            dropped.damaged_copies += 1
    order = order_of(limits.drop_first)
    drop_inputs(connection, order, dropped, excess, uploaded=True)
    first, last = connection.one("SELECT min(seq) FROM rows"), connection.one("SELECT max(seq) FROM rows")
    if first is not None:
        drop_rows(connection, first, last - LAST_ROWS, dropped, excess)
    drop_inputs(connection, order[: order.index("telemetry")], dropped, excess, uploaded=False)
    empty_telemetry(connection, last or 0, dropped, excess)
    drop_inputs(connection, order, dropped, excess, uploaded=False)
    dropped.beyond_bytes = max(0, over())


def _give_back(connection: Connection, limits: StoreLimits) -> None:
    """Give free pages back to the disk: a little each time, and more while the file is larger than it may be."""
    for _ in range(MAX_VACUUMS):
        connection.give_back(VACUUM_PAGES)
        unused = connection.unused_bytes()
        if not unused or limits.total_bytes is None or connection.used_bytes() + unused <= limits.total_bytes:
            return


def _make_reserve(path: "os.PathLike[str]", size_bytes: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"cannot make {path}: {error.strerror}", hint="free space on this disk") from error
