"""The device's record and outbox: every decision is here before anything moves, until the cloud has stored it.

Rules:
- A `Store` is one connection with one user at a time: every thread or task opens its own on the same file.
  (An asyncio task may hand a call to a worker thread, as long as it waits for it.)
- `seq` starts at 1 and has no holes; the seq that a row carries when it comes in is replaced.
- Only `mark_stored` takes rows out of the outbox. Unsent decisions are never dropped, whatever the limits say.
- After any StoreError with `retry` the store is usable again as soon as the disk is.
- Statements are prepared once (the standard library caches them); the hot path is `append_decision`.
"""

import contextlib
import os
import sqlite3
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from edge.clock import Clock
from edge.connection import Connection
from edge.database import Durability, open_database, open_read_only, store_error
from edge.dropping import LEFT_OUT_META, Pruned, count, counted
from edge.erasure import Erasure, Forgotten, Request, wipe
from edge.errors import StoreError
from edge.groupsync import GroupSync
from edge.keptinputs import KeptInputs
from edge.logs import EVENTS, LEVELS
from edge.retention import StoreLimits, prune
from edge.rowtext import AnyRow, StoredRow, read_row, reads, row_text
from edge.salvage import DAMAGE, salvage
from edge.setaside import salvaged
from edge.shadowresults import ShadowResults
from edge.wear import KeptFor, WriteBudget
from edge.wire.rows import FORGOTTEN_EVENT, DecisionRow, EventRow, OutcomeRow, TelemetryRow

BATCH_ROWS = 200
BATCH_BYTES = 256 * 1024
"""One batch stays far below the smallest payload limit in use (1 MB of an untuned NATS)."""
WRITTEN_TODAY = "written_today"
"""Key of the small fact that keeps the day's written bytes over restarts."""
BEYOND_META = "beyond_limit"
"""Key of the small fact that the record is too large although nothing more may go."""
MEASURED_ROWS = 10_000
"""The outbox's bytes are measured on this many rows and extrapolated beyond: the answer must stay quick."""

_INSERT = (
    "INSERT INTO rows (kind, station, at_ms, body, input_key, awaits_outcome, outcome_of) VALUES (?, ?, ?, ?, ?, ?, ?)"
)

_INSERT_TWO = f"{_INSERT}, (?, ?, ?, ?, ?, ?, ?)"
_Values = tuple[str | int | None, ...]

RowType = TypeVar("RowType", DecisionRow, OutcomeRow, EventRow, TelemetryRow)


class OutboxSize(NamedTuple):
    """How much the control plane has not stored yet."""

    rows: int
    bytes: int
    oldest_at_ms: int | None


class Store:
    """One connection to the device's record."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        clock: Clock,
        limits: StoreLimits | None = None,
        lock: int | None = None,
        budget: WriteBudget | None = None,
        group: GroupSync | None = None,
    ) -> None:
        """Wrap an open connection; use `open` or `open_read_only`."""
        self._budget = budget or WriteBudget(None)
        self._c = Connection(connection, path)
        self._clock = clock
        self._limits = limits or StoreLimits()
        self._lock = lock
        self._group = group
        self.inputs = KeptInputs(self._c, self._limits.upload_refusals)
        """Raw inputs and which of them wait to be sent."""
        self.shadow = ShadowResults(self._c)
        """What candidates said beside the decisions."""
        self.incarnation: str = self._c.one("SELECT incarnation FROM state")
        """Identity of this file: a new one begins a new sequence."""

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        clock: Clock,
        durability: Durability = "power",
        limits: StoreLimits | None = None,
        budget: WriteBudget | None = None,
        group: GroupSync | None = None,
    ) -> "Store":
        """Open or create the record at `path`; a damaged one is kept aside and an event says so.

        With durability `power`, those who share `group` share its syncs as well.

        Raises:
            StoreError: the disk does not let it be opened.
            ConfigError: it was written by newer software.
        """
        opened = open_database(path, durability=durability, now_ms=clock.now_ms)
        safe = (group or GroupSync()) if durability == "power" else None
        store = cls(opened.connection, path, clock, limits, opened.lock, budget, safe)
        # From here on it is said here what is synced, and when: a sync within SQLite holds up everybody who writes.
        store._c.all("PRAGMA synchronous = NORMAL")
        try:
            store._tell_damage(opened.damage, opened.salvage)
        except StoreError:
            store.close()
            raise
        return store

    @classmethod
    def open_read_only(cls, path: Path, *, clock: Clock) -> "Store":
        """Open an existing record for reading, also while the daemon writes to it.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        try:
            return cls(open_read_only(path), path, clock)
        except sqlite3.Error as error:
            raise store_error(error, path) from error

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._c.close()
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
        outcome: OutcomeRow | None = None,
    ) -> DecisionRow:
        """Record a decision, all or nothing, and return it with its seq.

        Args:
            row: the decision.
            input_key: the input's key at its source, from now on `seen`; None for live frames.
            keep: raw bytes and media type of the input, kept under `row.input.digest`, or of its features, kept under
                `row.input.features` if the row names them; unless the day's budget of written bytes leaves it out: the
                returned row and the record say so.
            upload: whether the kept input waits to be sent; features never do.
            wants_outcome: whether the action is pending until `append_outcome`.
            outcome: of an action before, recorded in front of the decision in the same step.

        Raises:
            StoreError: nothing of it was recorded, or not so that it lasts; an outcome then says that it failed.
        """
        kind: KeptFor = "deferred_inputs" if row.reason else "confident_inputs"
        if keep is not None and self._budget.leaves_out(kind):
            row = row.model_copy(update={"input": row.input.model_copy(update={"kept": False, "features": None})})
            keep = None
        key = None if input_key is None else _plain(input_key)
        values = ("decision", row.station, row.at_ms, row_text(row), key, wants_outcome, None)
        if keep is None:
            seq = self._insert_alone(values, before=outcome)
        else:
            with self._c.write:
                seq = self._insert(values, before=outcome)
                digest, upload = row.input.features or row.input.digest, upload and row.input.features is None
                self.inputs.keep(digest, *keep, row.at_ms, station=row.station, kind=kind, upload=upload)
        try:
            self._make_last()
        except StoreError as error:
            self._take_back(seq, row, error)
            raise
        return _numbered(row, seq)

    def append_outcome(self, row: OutcomeRow) -> None:
        """Record what became of an action, which is then no longer pending.

        It lasts with the next decision: a power cut before that leaves an action whose outcome is unknown, and says so.

        Raises:
            StoreError: nothing of it was recorded.
        """
        self._insert_alone(_of_outcome(row))

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
        return self._told(self._append(row, station, row.at_ms))

    def append_telemetry(self, row: TelemetryRow) -> TelemetryRow:
        """Record one window of telemetry.

        Raises:
            StoreError: it was not recorded.
        """
        return self._append(row, row.station, row.ended_at_ms)

    def keep_input(self, digest: str, data: bytes, media_type: str, *, station: str) -> bool:
        """Keep the input of a disagreement, which its decision does not keep, and queue it for sending.

        Returns:
            Whether it is kept: not where the day's budget of written bytes leaves it out.

        Raises:
            StoreError: it was not kept.
        """
        if self._budget.leaves_out("disagreement_inputs"):
            return False
        with self._c.write:
            self.inputs.keep(
                digest,
                data,
                media_type,
                self._clock.now_ms(),
                station=station,
                kind="disagreement_inputs",
                upload=True,
            )
        return True

    def forget(self, request: Request) -> Forgotten:
        """Erase kept inputs, and the texts understood of them, for good; events with their digests are the proof.

        Call `wipe` afterwards: only then nothing of them lies on in the files.

        Raises:
            StoreError: not all of it was erased; what was is proved.
        """
        done = Forgotten()
        erasure = Erasure(self._c, self.inputs, request)
        for proof in erasure.steps():
            with self._c.overwriting(), self._c.write:
                erased, changed = erasure.apply(proof)
                detail = f"{len(erased)} erased: {request.why}"
                row = EventRow(
                    seq=1,
                    at_ms=self._clock.now_ms(),
                    boot_id="",
                    name=FORGOTTEN_EVENT,
                    station=request.station,
                    detail=detail,
                    data=proof.data(request, erased),
                )
                row = _numbered(row, self._insert((row.kind, row.station, row.at_ms, row_text(row), None, False, None)))
            self._told(row)
            done.inputs += len(erased)
            done.rows += changed
            done.copies += proof.copies
        return done

    def wipe(self) -> bool:
        """Leave nothing of what was deleted in free pages and in the write-ahead log.

        Returns:
            Whether that is done; not while somebody reads from the log: try again then.

        Raises:
            StoreError: the disk failed.
        """
        return wipe(self._c)

    # ── reading rows ──────────────────────────────────────────────────────────────────────────────────────────

    def seen(self, station: str, key: str) -> bool:
        """Return whether this input of this station was decided."""
        return self._c.one("SELECT 1 FROM seen WHERE station = ? AND key = ?", station, _plain(key)) is not None

    def knows(self, station: str) -> bool:
        """Return whether there is anything of a station in the record."""
        found = "SELECT 1 FROM keepers WHERE station = ?1 UNION ALL SELECT 1 FROM rows WHERE station = ?1 LIMIT 1"
        return self._c.one(found, station) is not None

    def pending_actions(self, station: str | None = None, *, limit: int = -1) -> list[int]:
        """Return the decisions without an outcome, oldest first, of one station or all.

        After a restart their outcome is unknown, except where the actuator takes its actions from here.
        """
        found = self._c.all(
            "SELECT p.seq FROM pending_actions p LEFT JOIN rows r ON r.seq = p.seq "
            "WHERE ?1 IS NULL OR r.station = ?1 ORDER BY p.seq LIMIT ?2",
            station,
            limit,
        )
        return [seq for (seq,) in found]

    def decision(self, seq: int) -> DecisionRow | None:
        """Return one decision, or None if there is none of that number (any more)."""
        found = self._rows("WHERE seq = ? AND kind = 'decision'", seq)
        row = read_row(found[0], self._clock.now_ms()) if found else None
        return row if isinstance(row, DecisionRow) else None

    def last_decisions(self, n: int) -> list[DecisionRow]:
        """Return the newest decisions, newest first."""
        found = self._rows("WHERE kind = 'decision' ORDER BY seq DESC LIMIT ?", n)
        rows = [read_row(row, self._clock.now_ms()) for row in found]
        return [row for row in rows if isinstance(row, DecisionRow)]

    def rows(self, after: int = 0, *, kind: str | None = None, limit: int = 1000) -> list[AnyRow]:
        """Return up to `limit` rows with a seq above `after`, oldest first, of one kind or all.

        In the place of a row whose text was damaged on disk there is an event that says so.
        """
        if kind is None:
            found = self._rows("WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
        else:
            found = self._rows("WHERE seq > ? AND kind = ? ORDER BY seq LIMIT ?", after, kind, limit)
        return [read_row(row, self._clock.now_ms()) for row in found]

    def last_seq(self) -> int:
        """Return the seq of the newest row ever recorded, 0 for none."""
        return int(self._c.one("SELECT max(seq) FROM rows") or 0)

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
        self._c.sync()

    def mark_stored(self, incarnation: str, through: int) -> None:
        """Take note that the control plane has stored every row of `incarnation` up to `through`.

        What is about another incarnation, or older than what is known, changes nothing.

        Raises:
            StoreError: it was not recorded; the rows will be sent again.
        """
        if incarnation != self.incarnation or through <= self.stored_through():
            return
        behind = through - self.last_seq()
        with self._c.write:
            self._c.execute("UPDATE state SET stored_through = max(stored_through, ?)", (through,))
            if behind > 0:
                self._go_on_behind(through, behind)

    def _go_on_behind(self, through: int, behind: int) -> None:
        # This file is an older copy of itself: numbers that the cloud knows must not be given out again.
        row = EventRow(
            seq=through + 1,
            at_ms=self._clock.now_ms(),
            boot_id="",
            name="store_behind",
            severity="alarm",
            detail=f"the control plane has {behind} rows that are not in this record: was an old copy put back?",
            data={"through": through},
        )
        self._c.execute(
            "INSERT INTO rows (seq, kind, at_ms, body) VALUES (?, ?, ?, ?)",
            (row.seq, row.kind, row.at_ms, row_text(row)),
        )

    def stored_through(self) -> int:
        """Return the seq up to which the control plane has stored everything."""
        return int(self._c.one("SELECT stored_through FROM state"))

    def mend_unsent(self) -> int:
        """Put events in the place of those rows of the next batch whose text was damaged on disk; return how many.

        A text that nobody can read would be sent, and refused, for ever, and hold up every row behind it.

        Raises:
            StoreError: it was not recorded.
        """
        damaged = [row for row in self.unsent(0) if not reads(row.body)]
        with self._c.write:
            for row in damaged:
                body = row_text(read_row(row, self._clock.now_ms()))
                self._c.execute("UPDATE rows SET kind = 'event', body = ? WHERE seq = ?", (body, row.seq))
        return len(damaged)

    def outbox_size(self) -> OutboxSize:
        """Return rows, bytes (extrapolated beyond 10,000 rows) and the oldest row's wall clock."""
        stored = self.stored_through()
        rows = self.last_seq() - stored
        measured, size, oldest = self._c.all(
            "SELECT count(*), coalesce(sum(length(body)), 0), min(at_ms) FROM "
            "(SELECT body, at_ms FROM rows WHERE seq > ? ORDER BY seq LIMIT ?)",
            stored,
            MEASURED_ROWS,
        )[0]
        return OutboxSize(rows, size * rows // measured if measured else 0, oldest)

    # ── small facts, upkeep ───────────────────────────────────────────────────────────────────────────────────

    def get_meta(self, key: str) -> str | None:
        """Return a small fact, or None."""
        value: str | None = self._c.one("SELECT value FROM meta WHERE key = ?", key)
        return value

    def set_meta(self, key: str, value: str) -> None:
        """Keep a small fact.

        Raises:
            StoreError: it was not recorded.
        """
        with self._c.write:
            self._c.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
                (key, value),
            )
        self._make_last()

    def count_written(self, written_bytes: int) -> None:
        """Count what the process wrote against the day's budget; an event tells when more or less is left out.

        Raises:
            StoreError: it was not recorded; what was counted still holds until the daemon ends.
        """
        budget = self._budget
        changed = budget.add(written_bytes, self._clock.now_ms())
        with self._c.write:
            count(self._c, LEFT_OUT_META, budget.take_untold())
        self.set_meta(WRITTEN_TODAY, budget.text())
        if changed is not None:
            detail = f"left out for the rest of the day: {', '.join(changed)}" if changed else "all is written again"
            severity: Literal["warning", "info"] = "warning" if changed else "info"
            self.append_event("writing_reduced", boot_id="", severity=severity, detail=detail, data=budget.figures())

    def prune(self) -> Pruned:
        """Drop what is beyond the limits, least hurtful first; an event tells what.

        Raises:
            StoreError: the disk does not even let things be deleted.
        """
        dropped = prune(self._c, self._limits, self._clock.now_ms())
        if dropped.any:
            self.append_event(
                "store_pruned", boot_id="", severity="warning" if dropped.lost else "info", data=asdict(dropped)
            )
        self._tell_beyond(dropped.beyond_bytes)
        return dropped

    def dropped(self) -> dict[str, dict[str, int]]:
        """Return what was dropped, and what was left out for the budget of written bytes, since this record began.

        Raises:
            StoreError: it could not be read.
        """
        return counted(self._c)

    # ── private, in call order ────────────────────────────────────────────────────────────────────────────────

    def _tell_damage(self, damage: str, damaged: Path | None) -> None:
        if damage:
            detail = f"the record was damaged ({damage}) and is kept aside"
            self.append_event("store_replaced", boot_id="", severity="alarm", detail=detail)
        if damaged is not None:
            self._salvage(damaged)

    def _salvage(self, damaged: Path) -> None:
        detail, data = f"from {damaged.name}", {}
        try:
            data = asdict(salvage(damaged, self._c))
        except DAMAGE as error:
            detail = f"nothing from {damaged.name}: {error}"
        except StoreError:
            return  # no room: the next start tries again
        self._c.sync()
        self.append_event("rows_salvaged", boot_id="", severity="warning", detail=detail, data=data)
        salvaged(self._c.path)

    def _tell_beyond(self, beyond_bytes: int) -> None:
        """Tell once that nothing more may go although the record is too large, and once that it is over."""
        if bool(beyond_bytes) == (self.get_meta(BEYOND_META) == "1"):
            return
        data = {"beyond_bytes": beyond_bytes, "limit_bytes": self._limits.total_bytes}
        if beyond_bytes:
            detail = "what is left in the record is unsent and never dropped: bring the control plane back in reach"
            self.append_event("store_beyond_limit", boot_id="", severity="alarm", detail=detail, data=data)
        else:
            self.append_event("store_within_limit", boot_id="", detail="within its limit again", data=data)
        self.set_meta(BEYOND_META, "1" if beyond_bytes else "0")

    def _told(self, row: EventRow) -> EventRow:
        """Make an event that was recorded last, and write it to the log of the daemon."""
        self._make_last()
        EVENTS.log(LEVELS[row.severity], row.name, extra={"event": row.model_dump(exclude={"kind"})})
        return row

    def _make_last(self) -> None:
        """With durability `power`, return when what was committed survives a power cut."""
        if self._group is not None:
            self._group.wait(self._c.sync)

    def _take_back(self, seq: int, row: DecisionRow, error: StoreError) -> None:
        """Say of a decision that may not last that it was not acted on; on a dead disk it stays pending."""
        if row.action == "none":
            return
        detail = f"the decision did not reach the disk: {error}"
        with contextlib.suppress(StoreError):
            self.append_outcome(
                OutcomeRow(seq=1, decision_seq=seq, at_ms=row.at_ms, state="failed", actuator="", detail=detail)
            )

    def _append(self, row: RowType, station: str | None, at_ms: int) -> RowType:
        return _numbered(row, self._insert_alone((row.kind, station, at_ms, row_text(row), None, False, None)))

    def _insert_alone(self, values: _Values, before: OutcomeRow | None = None) -> int:
        # One statement is a transaction of its own, and costs half of one with BEGIN and COMMIT.
        try:
            return self._insert(values, before)
        except sqlite3.Error as error:
            raise store_error(error, self._c.path) from error

    def _insert(self, values: _Values, before: OutcomeRow | None = None) -> int:
        if before is None:
            seq = self._c.execute(_INSERT, values).lastrowid
        else:
            seq = self._c.execute(_INSERT_TWO, _of_outcome(before) + values).lastrowid
        assert seq is not None
        return seq

    def _rows(self, where: str, *values: Any) -> list[StoredRow]:
        found = self._c.all(f"SELECT seq, kind, body FROM rows {where}", *values)  # noqa: S608 - `where` is from above
        return [StoredRow(seq, kind, f'{{"seq":{seq},{body[1:]}') for seq, kind, body in found]


def _of_outcome(row: OutcomeRow) -> _Values:
    return "outcome", None, row.at_ms, row_text(row), None, False, row.decision_seq


def _numbered(row: RowType, seq: int) -> RowType:
    return row.model_copy(update={"seq": seq})


def _plain(key: str) -> str:
    # A file name that is not UTF-8 comes with surrogates, which SQLite does not take.
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()
