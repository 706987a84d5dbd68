"""Keeps the record within its limits, dropping what hurts least first.

Rules:
- Rows that the control plane has stored go first, oldest first; then uploaded inputs; then inputs not yet uploaded.
- Unsent telemetry beyond its limit is emptied, not removed: its number stays, so the sequence has no hole.
- An unsent decision, outcome or event is never dropped, whatever the limits say.
- When the disk itself is nearly full, only `LAST_ROWS` stored rows and no uploaded inputs are kept: that makes room
  for decisions inside the file. A reserve beside it gives the room that deleting itself needs.
- Work is cut into short transactions, so that a decision never waits long for it.
"""

import os
import shutil
from dataclasses import asdict, dataclass

from edge.connection import Connection
from edge.errors import StoreError

SLACK = 1.1
"""Nothing is dropped until a limit is passed by a tenth: seldom and much, instead of always and little."""
DAY_MS = 86_400_000
CHUNK_ROWS = 200
"""Rows in one transaction, about a millisecond."""
LAST_ROWS = 1000
"""Stored rows kept when the disk is nearly full, for `log` and `replay`."""
VACUUM_PAGES = 500
"""Free pages given back to the disk in one go, 2 MB."""


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


@dataclass(slots=True)
class Pruned:
    """What was dropped."""

    rows: int = 0
    uploaded_inputs: int = 0
    unsent_inputs: int = 0
    """Kept inputs that nobody will see any more."""
    unsent_telemetry: int = 0
    """Windows of telemetry that the control plane will not get."""
    seen_keys: int = 0

    @property
    def any(self) -> bool:
        return any(asdict(self).values())

    @property
    def lost(self) -> bool:
        """Whether something was dropped that the control plane does not have."""
        return bool(self.unsent_inputs or self.unsent_telemetry)


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
    _stored_rows(connection, min(limits.rows, LAST_ROWS) if full else limits.rows, dropped)
    if limits.row_age_days is not None:
        _old_rows(connection, now_ms - round(limits.row_age_days * DAY_MS), dropped)
    if limits.input_age_days is not None:
        _aged(connection, now_ms - round(limits.input_age_days * DAY_MS), dropped)
    _inputs(connection, limits.input_bytes, dropped, drop_uploaded=full)
    _telemetry(connection, limits.unsent_telemetry_rows, dropped)
    _seen(connection, limits.seen_keys, dropped)
    connection.all(f"PRAGMA wal_checkpoint({'TRUNCATE' if full else 'PASSIVE'})")
    if dropped.any and not full:
        connection.all(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
    if not reserve.exists() and free > limits.low_disk_bytes + limits.reserve_bytes:
        _make_reserve(reserve, limits.reserve_bytes)
    return dropped


def _stored_rows(connection: Connection, keep: int, dropped: Pruned) -> None:
    first = connection.one("SELECT min(seq) FROM rows")
    last = connection.one("SELECT max(seq) FROM rows")
    if first is None or last - first + 1 <= keep * SLACK:
        return
    _drop_rows(connection, first, last - max(keep, 1), dropped)


def _old_rows(connection: Connection, until_ms: int, dropped: Pruned) -> None:
    first = connection.one("SELECT min(seq) FROM rows")
    last = connection.one("SELECT max(seq) FROM rows")
    # Up to the first row that is young enough: a clock that jumped back leaves old stamps behind young ones.
    young = connection.one("SELECT seq FROM rows WHERE at_ms >= ? ORDER BY seq LIMIT 1", until_ms)
    if first is not None:
        _drop_rows(connection, first, last - 1 if young is None else young - 1, dropped)


def _drop_rows(connection: Connection, first: int, until: int, dropped: Pruned) -> None:
    """Drop rows from the first one on, except what is unsent or pending and the newest, which gives the next number."""
    pending = connection.one("SELECT min(seq) FROM pending_actions")
    stored = connection.one("SELECT stored_through FROM state")
    last = connection.one("SELECT max(seq) FROM rows")
    until = min(until, last - 1, stored, stored if pending is None else pending - 1)
    while first <= until:
        step = min(first + CHUNK_ROWS - 1, until)
        with connection.write:
            dropped.rows += connection.execute("DELETE FROM rows WHERE seq <= ?", (step,)).rowcount
            connection.execute("DELETE FROM shadow_results WHERE decision_seq <= ?", (step,))
        first = step + 1


def _aged(connection: Connection, until_ms: int, dropped: Pruned) -> None:
    while True:
        aged = connection.all("SELECT digest, uploaded FROM inputs WHERE kept_at_ms < ? LIMIT ?", until_ms, CHUNK_ROWS)
        if not aged:
            return
        with connection.write:
            for digest, uploaded in aged:
                connection.execute("DELETE FROM uploads WHERE digest = ?", (digest,))
                connection.execute("DELETE FROM inputs WHERE digest = ?", (digest,))
                dropped.uploaded_inputs += uploaded
                dropped.unsent_inputs += 1 - uploaded


def _inputs(connection: Connection, limit_bytes: int, dropped: Pruned, *, drop_uploaded: bool) -> None:
    total = connection.one("SELECT coalesce(sum(size_bytes), 0) FROM inputs")
    goal = limit_bytes if total > limit_bytes * SLACK else total
    while total > goal or drop_uploaded:
        oldest = connection.all(
            "SELECT digest, size_bytes, uploaded FROM inputs ORDER BY uploaded DESC, kept_at_ms LIMIT 1"
        )
        if not oldest or (total <= goal and not oldest[0][2]):
            return
        digest, size, uploaded = oldest[0]
        with connection.write:
            connection.execute("DELETE FROM uploads WHERE digest = ?", (digest,))
            connection.execute("DELETE FROM inputs WHERE digest = ?", (digest,))
        total -= size
        dropped.uploaded_inputs += uploaded
        dropped.unsent_inputs += 1 - uploaded


def _telemetry(connection: Connection, keep: int, dropped: Pruned) -> None:
    unsent = "kind = 'telemetry' AND seq > (SELECT stored_through FROM state)"
    count = connection.one(f"SELECT count(*) FROM rows WHERE {unsent}")  # noqa: S608 - a constant
    if count <= keep * SLACK:
        return
    # The emptied row is an event in its place, so that the control plane can tell what it did not get.
    empty = (
        "json_object('kind', 'event', 'at_ms', at_ms, 'boot_id', '', 'name', 'telemetry_dropped', "
        "'severity', 'warning', 'station', station, 'detail', 'too much was waiting to be sent')"
    )
    left = count - keep
    while left > 0:
        with connection.write:
            changed = connection.execute(
                f"UPDATE rows SET kind = 'event', body = {empty} WHERE seq IN "  # noqa: S608 - constants
                f"(SELECT seq FROM rows WHERE {unsent} ORDER BY seq LIMIT ?)",
                (min(left, CHUNK_ROWS),),
            ).rowcount
        dropped.unsent_telemetry += changed
        left = left - changed if changed else 0


def _seen(connection: Connection, keep: int, dropped: Pruned) -> None:
    count = connection.one("SELECT count(*) FROM seen")
    if count <= keep * SLACK:
        return
    until = connection.one("SELECT seq FROM seen ORDER BY seq DESC LIMIT 1 OFFSET ?", keep)
    with connection.write:
        dropped.seen_keys = connection.execute("DELETE FROM seen WHERE seq <= ?", (until,)).rowcount


def _make_reserve(path: "os.PathLike[str]", size_bytes: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreError(f"cannot make {path}: {error.strerror}", hint="free space on this disk") from error
