"""Erases from the record, on request, kept inputs and the texts that were understood of them, and proves it.

Rules:
- What is asked for is an input: every decision on the same content loses it, and its text, wherever it stands.
- An erasure and its proof, an event that asks the control plane to do the same, are one transaction. A request over
  much is many of those, each short enough that no decision waits long for it.
- Deleted bytes are overwritten. Afterwards free pages are given back and the log is emptied (`wipe`), so that nothing
  that was dropped earlier lies on in the file either.
- Damaged predecessors are removed whole, before their removal is proved: nobody can erase a part of a damaged file.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge.connection import Connection
from edge.keptinputs import KeptInputs
from edge.setaside import damaged_copies
from edge.wire.forgetting import forgotten, names_decision

MAX_NAMED = 500
"""Digests, and rows, in one proof: 40 KB, well below the size of a row."""
MAX_BYTES = 4 * 2**20
"""Of inputs erased in one transaction."""
READ_ROWS = 500
_DAMAGED = {
    "kind": "event",
    "at_ms": 0,
    "boot_id": "",
    "name": "row_damaged",
    "severity": "alarm",
    "detail": "the text of a row was damaged on disk",
}
VACUUM_PAGES = 500
"""Free pages given back in one transaction, 2 MB."""
_HOLDING = ('"kept":true', '"kept": true', '"text', '"features":"', '"features": "', '"input":"', '"input": "')
"""In the text of a row that may hold something: seen before it is parsed, because a record has a million rows."""
EMPTY_WAIT_MS = 250
"""Longest wait for readers of the log at one try: a decision waits behind it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be forgotten: decisions by number, or everything before a moment, of one station or all."""

    why: str
    decisions: tuple[int, ...] = ()
    before_ms: int | None = None
    station: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What one transaction erases; `data` is that of the event `inputs_forgotten`."""

    digests: Sequence[str]
    seqs: Sequence[int]
    last: bool
    copies: Sequence[str] = ()

    def data(self, request: Request, erased: Sequence[str]) -> dict[str, Any]:
        """Return the event's data once these inputs were erased."""
        return {
            "count": len(erased),
            "digests": list(self.digests),
            "seqs": list(self.seqs),
            "before_ms": request.before_ms if self.last else None,
            "station": request.station,
            "copies": list(self.copies),
            "why": request.why,
        }


@dataclass(slots=True)
class Forgotten:
    """What was erased."""

    inputs: int = 0
    rows: int = 0
    """Decisions and events that lost a text, or the word that their input is kept."""
    copies: list[str] = field(default_factory=list)
    """Damaged predecessors of the record that were removed."""


class Erasure:
    """One request on one record. The caller opens the transactions."""

    def __init__(self, connection: Connection, inputs: KeptInputs, request: Request) -> None:
        self._c = connection
        self._inputs = inputs
        self._request = request
        self._digests = dict.fromkeys(self._asked_digests())

    def steps(self) -> Iterator[Proof]:
        """Give what each transaction is to erase; at least one, and the last one closes the request.

        Raises:
            StoreError: the record cannot be read, or a damaged predecessor cannot be removed.
        """
        copies = []
        for copy in damaged_copies(self._c.path):
            copy.erase()
            copies.append(copy.path.name)
        seqs = [*dict.fromkeys([*self._request.decisions, *self._holding()])]
        digests = [*self._digests]
        while len(seqs) > MAX_NAMED or self._many(digests):
            some = self._some(digests)
            yield Proof(some, seqs[:MAX_NAMED], last=False)
            digests, seqs = digests[len(some) :], seqs[MAX_NAMED:]
        yield Proof(digests, seqs, last=True, copies=copies)

    def apply(self, proof: Proof) -> tuple[list[str], int]:
        """Erase; return the inputs that were there and how many rows changed. To be called inside a transaction."""
        changed = 0
        for seq in proof.seqs:
            for (body,) in self._c.execute("SELECT body FROM rows WHERE seq = ?", (seq,)).fetchall():
                row = _parsed(body)
                left = forgotten(row)
                if left != row:
                    text = json.dumps(left, ensure_ascii=False, separators=(",", ":"))
                    self._c.execute("UPDATE rows SET kind = ?, body = ? WHERE seq = ?", (left["kind"], text, seq))
                    changed += 1
        return self._inputs.erase(proof.digests), changed

    def _asked_digests(self) -> Iterator[str]:
        if self._request.before_ms is not None:
            yield from self._inputs.before(self._request.before_ms, self._request.station)
        for seq in self._request.decisions:
            for (body,) in self._c.all("SELECT body FROM rows WHERE seq = ? AND kind = 'decision'", seq):
                yield from _digests_of(_parsed(body))

    def _holding(self) -> Iterator[int]:
        """Give the rows that hold a text, or say that an input is kept, and are asked for."""
        holds = " OR ".join(f"instr(body, '{words}')" for words in _HOLDING)
        after = 0
        while True:
            found = self._c.all(
                "SELECT seq, kind, station, at_ms, body FROM rows WHERE seq > ? "  # noqa: S608 - constants
                f"AND kind IN ('decision', 'event') AND ({holds} OR NOT json_valid(body)) ORDER BY seq LIMIT ?",
                after,
                READ_ROWS,
            )
            for seq, kind, station, at_ms, body in found:
                row = _parsed(body)
                if forgotten(row) != row and self._asked(seq, kind, station, at_ms, row):
                    yield seq
            if len(found) < READ_ROWS:
                return
            after = found[-1][0]

    def _asked(self, seq: int, kind: str, station: str | None, at_ms: int, row: dict[str, Any]) -> bool:
        if seq in self._request.decisions or self._in_time(station, at_ms):
            return self._also(row)
        if kind == "decision":
            return any(digest in self._digests for digest in _digests_of(row))
        decision = names_decision(row)
        for of, at, body in self._c.all("SELECT station, at_ms, body FROM rows WHERE seq = ?", decision):
            same = any(digest in self._digests for digest in _digests_of(_parsed(body)))
            if same or decision in self._request.decisions or self._in_time(of, at):
                return self._also(row)
        return decision in self._request.decisions and self._also(row)

    def _also(self, row: dict[str, Any]) -> bool:
        """Erase as well what was kept for a disagreement with a candidate."""
        digest = row["data"].get("input") if row.get("kind") == "event" else None
        if isinstance(digest, str):
            self._digests[digest] = None
        return True

    def _in_time(self, station: str | None, at_ms: int) -> bool:
        before, wanted = self._request.before_ms, self._request.station
        # What belongs to no station was damaged, and may be of any.
        return before is not None and at_ms < before and (wanted is None or station in (wanted, None))

    def _many(self, digests: list[str]) -> bool:
        return len(self._some(digests)) < len(digests)

    def _some(self, digests: list[str]) -> list[str]:
        """Return the first inputs that fit one transaction, at least one if there is any."""
        some: list[str] = []
        total = 0
        for digest in digests[:MAX_NAMED]:
            total += self._c.one("SELECT size_bytes FROM inputs WHERE digest = ?", digest) or 0
            if some and total > MAX_BYTES:
                break
            some.append(digest)
        return some


def wipe(connection: Connection) -> bool:
    """Give free pages back and empty the log; return whether that is done, False while somebody reads from the log.

    Raises:
        StoreError: the disk failed.
    """
    while connection.unused_bytes():
        before = connection.unused_bytes()
        connection.give_back(VACUUM_PAGES)
        if connection.unused_bytes() >= before:
            break  # a file that was not made to give pages back
    return connection.empty_log(EMPTY_WAIT_MS)


def _digests_of(row: dict[str, Any]) -> list[str]:
    """Return the content that a decision was about, and the features that are kept of it."""
    given = row.get("input")
    found = (given.get("digest"), given.get("features")) if isinstance(given, dict) else ()
    return [digest for digest in found if isinstance(digest, str)]


def _parsed(body: str) -> dict[str, Any]:
    """Return a row as an object; one whose text was damaged on disk as the event that takes its place."""
    try:
        row = json.loads(body)
    except ValueError:
        row = None
    return row if isinstance(row, dict) else {**_DAMAGED, "data": {"text": body}}
