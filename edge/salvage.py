"""Takes over from a damaged record what the control plane does not have: unsent rows, their inputs, what was seen.

Rules:
- One transaction: a cut in between changes nothing, and the next start does it again.
- Rows get numbers of the new record; `salvaged_from` (incarnation and seq) tells the control plane what they were,
  because it may have stored some of them already.
- What cannot be read, or does not match its digest, is left out and counted; nothing of it is believed.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.connection import Connection
from edge.database import text
from edge.rowtext import reads
from edge.wire.rows import FEATURES_MEDIA_TYPE

MAX_SKIPPED = 2_000
"""Numbers tried one by one behind unreadable pages before the rest is given up: a tenth of a second of the start."""
CHUNK_ROWS = 200
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What reading a damaged file may raise: a damaged name is no text even within SQLite's own message."""


@dataclass(slots=True)
class Salvaged:
    """What was taken over."""

    rows: int = 0
    unreadable_rows: int = 0
    inputs: int = 0
    seen_keys: int = 0


def salvage(damaged: Path, into: Connection) -> Salvaged:
    """Copy from the damaged file into the new record, all or nothing.

    Raises:
        StoreError: the new record does not take it.
    """
    found = Salvaged()
    old = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    old.text_factory = text
    try:
        with into.write:
            _Copy(old, into, found).run()
    finally:
        old.close()
    return found


class _Copy:
    """One run; `numbers` maps the decisions' old seq to the new one."""

    def __init__(self, old: sqlite3.Connection, into: Connection, found: Salvaged) -> None:
        self._old = old
        self._into = into
        self._found = found
        self._numbers: dict[int, int] = {}
        self._incarnation, self._stored_through = "unknown", 0

    def run(self) -> None:
        """Copy everything that can be read."""
        for incarnation, stored_through in self._read("SELECT incarnation, stored_through FROM state", str, int):
            self._incarnation, self._stored_through = incarnation, stored_through
        for seq, kind, station, at_ms, body in self._rows():
            self._take_row(seq, kind, station, at_ms, body)
        for (seq,) in self._read("SELECT seq FROM pending_actions", int):
            if seq in self._numbers:
                self._into.execute("INSERT INTO pending_actions (seq) VALUES (?)", (self._numbers[seq],))
        for station, key in self._read("SELECT station, key FROM seen", str, str):
            self._into.execute("INSERT OR IGNORE INTO seen (station, key, seq) VALUES (?, ?, 0)", (station, key))
            self._found.seen_keys += 1

    def _read(self, statement: str, *types: type, values: tuple[Any, ...] = ()) -> Iterator[Any]:
        """Give rows of these types until the end or the first damaged page; others are skipped."""
        try:
            for row in self._old.execute(statement, values):
                if all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                    yield row
        except DAMAGE:
            return

    def _rows(self) -> Iterator[Any]:
        """Give unsent rows in order, stepping over damaged pages."""
        last = max((seq for (seq,) in self._read("SELECT max(seq) FROM rows", int)), default=2**62)
        after, size, skipped = self._stored_through, CHUNK_ROWS, 0
        while skipped < MAX_SKIPPED and after < last:
            chunk = self._chunk(after, last, size)
            if chunk:
                yield from chunk
                after, size = chunk[-1][0], min(size * 2, CHUNK_ROWS)
            elif size > 1:
                size = 1  # find out which one cannot be read
            else:
                after, skipped = after + 1, skipped + 1

    def _chunk(self, after: int, last: int, size: int) -> list[Any]:
        try:
            found = self._old.execute(
                "SELECT seq, kind, station, at_ms, body FROM rows WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
                (after, min(last, after + size), size),
            ).fetchall()
        except DAMAGE:
            return []
        return [row for row in found if isinstance(row[0], int) and after < row[0] <= last]

    def _take_row(self, seq: int, kind: Any, station: Any, at_ms: Any, body: Any) -> None:
        sound = isinstance(body, str) and isinstance(at_ms, int) and isinstance(station, str | None)
        row = self._readable(seq, kind, body) if sound else None
        if row is None:
            self._found.unreadable_rows += 1
            return
        row["salvaged_from"] = {"incarnation": self._incarnation, "seq": seq}
        new = self._into.execute(
            "INSERT INTO rows (kind, station, at_ms, body) VALUES (?, ?, ?, ?)",
            (row["kind"], station, at_ms, json.dumps(row, ensure_ascii=False, separators=(",", ":"))),
        ).lastrowid
        assert new is not None
        self._found.rows += 1
        if kind == "decision":
            self._numbers[seq] = new
            kind = "deferred_inputs" if row.get("reason") else "confident_inputs"
            for digest in (row["input"]["digest"] if row["input"]["kept"] else None, row["input"].get("features")):
                if digest is not None:
                    self._take_input(digest, at_ms, station or "", kind)

    def _readable(self, seq: int, kind: str, body: str) -> dict[str, Any] | None:
        if not reads(f'{{"seq":{seq},{body[1:]}'):
            return None
        row: dict[str, Any] = json.loads(body)
        if row["kind"] != kind:
            return None
        if kind == "outcome" and (of := self._numbers.get(row["decision_seq"])) is not None:
            row["decision_seq"] = of
        elif kind == "outcome":
            # Its decision is stored already under its old number, or lost: the words stay, the link cannot.
            words = f"{row['state']} by {row['actuator']}, of decision {row['decision_seq']} before the damage"
            row = {"kind": "event", "at_ms": row["at_ms"], "boot_id": "", "name": "outcome_salvaged", "detail": words}
        return row

    def _take_input(self, digest: str, at_ms: int, station: str, kind: str) -> None:
        for media_type, uploaded, data in self._read(
            "SELECT media_type, uploaded, bytes FROM inputs WHERE digest = ?", str, int, bytes, values=(digest,)
        ):
            if hashlib.sha256(data).hexdigest() != digest:
                return
            self._into.execute(
                "INSERT OR IGNORE INTO keepers (digest, station, kind, kept_at_ms) VALUES (?, ?, ?, ?)",
                (digest, station, kind, at_ms),
            )
            self._into.execute(
                "INSERT OR IGNORE INTO inputs (digest, media_type, size_bytes, kept_at_ms, uploaded, bytes) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (digest, media_type, len(data), at_ms, int(bool(uploaded)), data),
            )
            if not uploaded and media_type != FEATURES_MEDIA_TYPE:
                self._into.execute("INSERT OR IGNORE INTO uploads (digest) VALUES (?)", (digest,))
            self._found.inputs += 1
