"""The device's record and outbox: every decision is here before anything moves, until the cloud has stored it.

Rules:
- A `Store` is one connection with one user at a time: every thread or task opens its own on the same file.
  (An asyncio task may hand a call to a worker thread, as long as it waits for it.)
- `seq` starts at 1 and has no holes; the seq that a row carries when it comes in is replaced.
- Only `mark_stored` takes rows out of the outbox. Unsent decisions are never dropped, whatever the limits say.
- After any StoreError with `retry` the store is usable again as soon as the disk is.
- Statements are prepared once (the standard library caches them); the hot path is `append_decision`.
"""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar

from edge.clock import Clock
from edge.database import Durability, open_database, open_read_only, store_error
from edge.errors import StoreError
from edge.rowtext import row_text
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow, TelemetryRow, parse_row

BATCH_ROWS = 200
BATCH_BYTES = 256 * 1024
"""One batch stays far below the smallest payload limit in use (1 MB of an untuned NATS)."""
MEASURED_ROWS = 10_000
"""The outbox's bytes are measured on this many rows and extrapolated beyond: the answer must stay quick."""

AnyRow = DecisionRow | OutcomeRow | EventRow | TelemetryRow
RowType = TypeVar("RowType", DecisionRow, OutcomeRow, EventRow, TelemetryRow)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much of what may be kept; unsent decisions are above every limit."""

    rows: int = 200_000
    """Stored rows kept for `log` and `replay`; about 200 MB, and a day at two decisions a second."""
    unsent_telemetry_rows: int = 20_000
    """Two weeks of one station's minutes; older ones are emptied, leaving their number and a note."""
    input_bytes: int = 1024**3
    """Kept inputs: some ten thousand pictures."""
    seen_keys: int = 500_000
    """Inputs of a source known as decided; a folder with more files than this would be read again."""
    upload_refusals: int = 5
    """How often the control plane may refuse an input before it is put aside."""


class StoredRow(NamedTuple):
    """A row as it travels: `body` is its JSON with `seq`."""

    seq: int
    kind: str
    body: str


class Upload(NamedTuple):
    """A kept input that waits to be sent."""

    digest: str
    media_type: str
    size_bytes: int
    tries: int


class OutboxSize(NamedTuple):
    """How much the control plane has not stored yet."""

    rows: int
    bytes: int
    oldest_at_ms: int | None


class Store:
    """One connection to the device's record."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, clock: Clock, limits: StoreLimits, lock: int | None
    ) -> None:
        """Wrap an open connection; use `open` or `open_read_only`."""
        self._connection = connection
        self._execute = connection.execute
        self._path = path
        self._clock = clock
        self._limits = limits
        self._lock = lock
        self._write = _Transaction(connection, path)
        self._power_safe = self._one("PRAGMA synchronous") >= 2
        self.incarnation: str = self._one("SELECT incarnation FROM state")

    @classmethod
    def open(
        cls, path: Path, *, clock: Clock, durability: Durability = "power", limits: StoreLimits | None = None
    ) -> "Store":
        """Open or create the record at `path`; a damaged one is kept aside and an event says so.

        Raises:
            StoreError: the disk does not let it be opened.
            ConfigError: it was written by newer software.
        """
        opened = open_database(path, durability=durability, now_ms=clock.now_ms)
        store = cls(opened.connection, path, clock, limits or StoreLimits(), opened.lock)
        if opened.damaged is not None:
            store.append_event(
                "store_replaced",
                boot_id="",
                severity="alarm",
                detail=f"the record was damaged ({opened.damage}) and is kept as {opened.damaged.name}",
            )
        return store

    @classmethod
    def open_read_only(cls, path: Path, *, clock: Clock) -> "Store":
        """Open an existing record for reading, also while the daemon writes to it.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        try:
            return cls(open_read_only(path), path, clock, StoreLimits(), None)
        except sqlite3.Error as error:
            raise store_error(error, path) from error

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._connection.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── writing rows ──────────────────────────────────────────────────────────────────────────────────────────

    def append_decision(
        self,
        row: DecisionRow,
        *,
        input_key: str | None,
        keep: tuple[bytes, str] | None = None,
        upload: bool = True,
        wants_outcome: bool = True,
    ) -> DecisionRow:
        """Record a decision, all or nothing, and return it with its seq.

        Args:
            row: the decision.
            input_key: the input's key at its source, from now on `seen`; None for live frames.
            keep: raw bytes and media type of the input, kept under `row.input.digest`.
            upload: whether the kept input waits to be sent.
            wants_outcome: whether the action is pending until `append_outcome`.

        Raises:
            StoreError: nothing of it was recorded.
        """
        body = row_text(row)
        with self._write:
            seq = self._insert("decision", row.station, row.at_ms, body)
            if input_key is not None:
                self._execute(
                    "INSERT INTO seen (station, key, seq) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET seq = excluded.seq",
                    (row.station, _plain(input_key), seq),
                )
            if wants_outcome:
                self._execute("INSERT INTO pending_actions (seq) VALUES (?)", (seq,))
            if keep is not None:
                self._keep(row.input.digest, keep, row.at_ms, upload=upload)
        return _numbered(row, seq)

    def append_outcome(self, row: OutcomeRow) -> OutcomeRow:
        """Record what became of an action, which is then no longer pending.

        Raises:
            StoreError: nothing of it was recorded.
        """
        body = row_text(row)
        with self._write:
            seq = self._insert("outcome", None, row.at_ms, body)
            self._execute("DELETE FROM pending_actions WHERE seq = ?", (row.decision_seq,))
        return _numbered(row, seq)

    def append_event(
        self,
        name: str,
        *,
        boot_id: str,
        severity: Literal["info", "warning", "alarm"] = "info",
        station: str | None = None,
        model: str | None = None,
        detail: str = "",
        data: dict[str, Any] | None = None,
    ) -> EventRow:
        """Record an event, named in the past tense.

        Raises:
            StoreError: it was not recorded.
        """
        row = EventRow(
            seq=1,
            at_ms=self._clock.now_ms(),
            boot_id=boot_id,
            name=name,
            severity=severity,
            station=station,
            model=model,
            detail=detail,
            data=data or {},
        )
        return self._append(row, station, row.at_ms)

    def append_telemetry(self, row: TelemetryRow) -> TelemetryRow:
        """Record one window of telemetry.

        Raises:
            StoreError: it was not recorded.
        """
        return self._append(row, row.station, row.ended_at_ms)

    # ── reading rows ──────────────────────────────────────────────────────────────────────────────────────────

    def seen(self, station: str, key: str) -> bool:
        """Return whether this input of this station was decided."""
        return bool(self._all("SELECT 1 FROM seen WHERE station = ? AND key = ?", station, _plain(key)))

    def pending_actions(self) -> list[int]:
        """Return the decisions without an outcome, oldest first; after a restart their outcome is unknown."""
        return [seq for (seq,) in self._all("SELECT seq FROM pending_actions ORDER BY seq")]

    def decision(self, seq: int) -> DecisionRow | None:
        """Return one decision, or None if there is none of that number (any more)."""
        found = self._rows("WHERE seq = ? AND kind = 'decision'", seq)
        return _decision(found[0]) if found else None

    def last_decisions(self, n: int) -> list[DecisionRow]:
        """Return the newest decisions, newest first."""
        return [_decision(row) for row in self._rows("WHERE kind = 'decision' ORDER BY seq DESC LIMIT ?", n)]

    def rows(self, after: int = 0, *, kind: str | None = None, limit: int = 1000) -> list[AnyRow]:
        """Return up to `limit` rows with a seq above `after`, oldest first, of one kind or all."""
        if kind is None:
            found = self._rows("WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
        else:
            found = self._rows("WHERE seq > ? AND kind = ? ORDER BY seq LIMIT ?", after, kind, limit)
        return [parse_row(row.body) for row in found]

    def last_seq(self) -> int:
        """Return the seq of the newest row ever recorded, 0 for none."""
        found = self._all("SELECT seq FROM sqlite_sequence WHERE name = 'rows'")
        return int(found[0][0]) if found else 0

    # ── outbox ────────────────────────────────────────────────────────────────────────────────────────────────

    def unsent(self, after: int, *, max_rows: int = BATCH_ROWS, max_bytes: int = BATCH_BYTES) -> list[StoredRow]:
        """Return the next rows that the control plane has not stored, in order, from the first one above `after`.

        At least one row is returned if there is any, whatever its size.
        """
        batch: list[StoredRow] = []
        total = 0
        for row in self._rows("WHERE seq > ? ORDER BY seq LIMIT ?", max(after, self.stored_through()), max_rows):
            total += len(row.body)
            if batch and total > max_bytes:
                break
            batch.append(row)
        return batch

    def make_power_safe(self) -> None:
        """Return when no power cut can take back what was committed before.

        Rows must be safe before they are sent: a number that the cloud has stored must never be given to another
        row. The write-ahead log is synced from outside of SQLite so that nobody who writes waits for it.

        Raises:
            StoreError: the disk failed.
        """
        if self._power_safe:
            return
        try:
            descriptor = os.open(self._path.with_name(f"{self._path.name}-wal"), os.O_RDONLY)
        except FileNotFoundError:
            return  # checkpointed, which syncs
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise StoreError(f"cannot sync {self._path}: {error.strerror}", hint="look at the disk") from error
        finally:
            os.close(descriptor)

    def mark_stored(self, incarnation: str, through: int) -> None:
        """Take note that the control plane has stored every row of `incarnation` up to `through`.

        What is about another incarnation, or older than what is known, changes nothing.

        Raises:
            StoreError: it was not recorded; the rows will be sent again.
        """
        if incarnation != self.incarnation or through <= self.stored_through():
            return
        with self._write:
            self._execute("UPDATE state SET stored_through = max(stored_through, ?)", (min(through, self.last_seq()),))

    def stored_through(self) -> int:
        """Return the seq up to which the control plane has stored everything."""
        return int(self._one("SELECT stored_through FROM state"))

    def outbox_size(self) -> OutboxSize:
        """Return rows, bytes (extrapolated beyond 10,000 rows) and the oldest row's wall clock."""
        stored = self.stored_through()
        rows = self.last_seq() - stored
        measured, size, oldest = self._all(
            "SELECT count(*), coalesce(sum(length(body)), 0), min(at_ms) FROM "
            "(SELECT body, at_ms FROM rows WHERE seq > ? ORDER BY seq LIMIT ?)",
            stored,
            MEASURED_ROWS,
        )[0]
        return OutboxSize(rows, size * rows // measured if measured else 0, oldest)

    # ── kept inputs ───────────────────────────────────────────────────────────────────────────────────────────

    def input(self, digest: str) -> tuple[bytes, str] | None:
        """Return the raw bytes and media type of a kept input, or None if it is not kept (any more)."""
        found = self._all("SELECT bytes, media_type FROM inputs WHERE digest = ?", digest)
        return (found[0][0], found[0][1]) if found else None

    def want_upload(self, digests: Iterable[str]) -> int:
        """Queue kept inputs that are not uploaded and not queued; return how many were added.

        Raises:
            StoreError: none was queued.
        """
        with self._write:
            return sum(
                self._execute(
                    "INSERT INTO uploads (digest) SELECT digest FROM inputs WHERE digest = ? AND NOT uploaded "
                    "ON CONFLICT DO NOTHING",
                    (digest,),
                ).rowcount
                for digest in digests
            )

    def uploads_waiting(self) -> int:
        """Return how many kept inputs wait to be sent."""
        return int(self._one("SELECT count(*) FROM uploads WHERE put_aside IS NULL"))

    def next_upload(self) -> Upload | None:
        """Return the input to send next, or None."""
        found = self._all(
            "SELECT digest, media_type, size_bytes, tries FROM uploads JOIN inputs USING (digest) "
            "WHERE put_aside IS NULL ORDER BY tries, position LIMIT 1"
        )
        return Upload(*found[0]) if found else None

    def mark_uploaded(self, digest: str) -> None:
        """Take note that the control plane has this input.

        Raises:
            StoreError: it was not recorded; the input will be sent again.
        """
        with self._write:
            self._execute("DELETE FROM uploads WHERE digest = ?", (digest,))
            self._execute("UPDATE inputs SET uploaded = 1 WHERE digest = ?", (digest,))

    def refuse_upload(self, digest: str, why: str) -> bool:
        """Count a refusal by the control plane; after the limit the input is put aside. Return whether it was now.

        Raises:
            StoreError: it was not recorded.
        """
        with self._write:
            changed = self._execute(
                "UPDATE uploads SET tries = tries + 1, put_aside = iif(tries + 1 >= ?, ?, NULL) WHERE digest = ? "
                "RETURNING put_aside IS NOT NULL",
                (self._limits.upload_refusals, why, digest),
            ).fetchall()
        return bool(changed and changed[0][0])

    # ── small facts, upkeep ───────────────────────────────────────────────────────────────────────────────────

    def get_meta(self, key: str) -> str | None:
        """Return a small fact, or None."""
        found = self._all("SELECT value FROM meta WHERE key = ?", key)
        return found[0][0] if found else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small fact.

        Raises:
            StoreError: it was not recorded.
        """
        with self._write:
            self._execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )

    # ── private, in call order ────────────────────────────────────────────────────────────────────────────────

    def _append(self, row: RowType, station: str | None, at_ms: int) -> RowType:
        body = row_text(row)
        with self._write:
            seq = self._insert(row.kind, station, at_ms, body)
        return _numbered(row, seq)

    def _insert(self, kind: str, station: str | None, at_ms: int, body: str) -> int:
        cursor = self._execute(
            "INSERT INTO rows (kind, station, at_ms, body) VALUES (?, ?, ?, ?)", (kind, station, at_ms, body)
        )
        seq = cursor.lastrowid
        assert seq is not None
        return seq

    def _keep(self, digest: str, keep: tuple[bytes, str], at_ms: int, *, upload: bool) -> None:
        data, media_type = keep
        self._execute(
            "INSERT INTO inputs (digest, media_type, size_bytes, kept_at_ms, bytes) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (digest, media_type, len(data), at_ms, data),
        )
        if upload:
            self._execute(
                "INSERT INTO uploads (digest) SELECT digest FROM inputs WHERE digest = ? AND NOT uploaded "
                "ON CONFLICT DO NOTHING",
                (digest,),
            )

    def _rows(self, where: str, *values: Any) -> list[StoredRow]:
        found = self._all(f"SELECT seq, kind, body FROM rows {where}", *values)  # noqa: S608 - `where` is from above
        return [StoredRow(seq, kind, f'{{"seq":{seq},{body[1:]}') for seq, kind, body in found]

    def _one(self, statement: str) -> Any:
        return self._all(statement)[0][0]

    def _all(self, statement: str, *values: Any) -> list[Any]:
        try:
            return self._execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise store_error(error, self._path) from error


class _Transaction:
    """`with` it, everything inside is recorded together or not at all; whatever SQLite throws becomes a StoreError.

    A class, not a generator: it is entered for every decision, and this is half the price.
    """

    __slots__ = ("_connection", "_execute", "_path")

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._path = path

    def __enter__(self) -> None:
        try:
            self._execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise store_error(error, self._path) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self._execute("COMMIT")
            except sqlite3.Error as failure:
                self._roll_back()
                raise store_error(failure, self._path) from failure
            return
        self._roll_back()
        if isinstance(error, sqlite3.Error):
            raise store_error(error, self._path) from error

    def _roll_back(self) -> None:
        # A full disk or an I/O error may have rolled back already.
        if self._connection.in_transaction:
            self._execute("ROLLBACK")


def _numbered(row: RowType, seq: int) -> RowType:
    return row.model_copy(update={"seq": seq})


def _decision(row: StoredRow) -> DecisionRow:
    return DecisionRow.model_validate_json(row.body)


def _plain(key: str) -> str:
    # A file name that is not UTF-8 comes with surrogates, which SQLite does not take.
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()
