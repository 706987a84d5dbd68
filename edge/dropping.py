"""Drops rows and kept inputs from the record, in short transactions, and counts for good what went.

Rules:
- Of kept inputs those go first that the control plane has; then by what they were kept for, in the order of the
  settings; the oldest first. One that is kept for something more precious as well stays for that.
- An unsent decision, outcome or event is never dropped, nor the newest row, which gives the next number.
- Unsent telemetry is emptied, not removed: its number stays, so the sequence has no hole.
- Counts stand in `meta` from the transaction that drops on, so that no kill loses one.
"""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from edge.connection import Connection
from edge.wear import DROP_FIRST, Droppable

CHUNK_ROWS = 200
"""Rows in one transaction, about a millisecond."""
CHUNK_BYTES = 4 * 2**20
"""Of kept inputs in one transaction: to free them, their pages have to be read."""
DROPPED_META, LEFT_OUT_META = "dropped.", "left_out."
"""Where the counts since the record was begun lie in `meta`, what was dropped or never written behind it."""

_WORDS: dict[Droppable, str] = {
    "telemetry": "windows of telemetry",
    "confident_inputs": "inputs of sure decisions",
    "disagreement_inputs": "inputs of disagreements",
    "deferred_inputs": "inputs of deferrals",
}

Excess = Callable[[], float]
"""Says how many bytes still have to go; asked before each transaction."""


def everything() -> float:
    """Say that all of it has to go."""
    return math.inf


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
    confident_inputs: int = 0
    """Of the inputs, sent or not, those of sure decisions."""
    disagreement_inputs: int = 0
    deferred_inputs: int = 0
    expired_inputs: int = 0
    """Of the inputs, sent or not, those whose time was over."""
    input_bytes: int = 0
    """Size of all inputs that were dropped."""
    damaged_copies: int = 0
    """Damaged predecessors of the record that had been set aside."""
    beyond_bytes: int = 0
    """By how much the record is still too large: what is left is unsent, and nothing of it may go."""

    @property
    def any(self) -> bool:
        return any(number for name, number in asdict(self).items() if name != "beyond_bytes")

    @property
    def lost(self) -> bool:
        """Whether something was dropped that the control plane does not have."""
        return bool(self.unsent_inputs or self.unsent_telemetry)


def order_of(drop_first: Sequence[Droppable]) -> tuple[Droppable, ...]:
    """Return every kind in the order in which it goes: what the settings do not name goes last."""
    return (*drop_first, *(kind for kind in DROP_FIRST if kind not in drop_first))


def drop_rows(connection: Connection, first: int, until: int, dropped: Pruned, excess: Excess = everything) -> None:
    """Drop stored rows from the first one on, except what is pending and the newest."""
    pending = connection.one("SELECT min(seq) FROM pending_actions")
    stored = connection.one("SELECT stored_through FROM state")
    last = connection.one("SELECT max(seq) FROM rows")
    until = min(until, last - 1, stored, stored if pending is None else pending - 1)
    while first <= until and excess() > 0:
        step = min(first + CHUNK_ROWS - 1, until)
        with connection.write:
            dropped.rows += connection.execute("DELETE FROM rows WHERE seq <= ?", (step,)).rowcount
            connection.execute("DELETE FROM shadow_results WHERE decision_seq <= ?", (step,))
        first = step + 1


def drop_inputs(
    connection: Connection, order: Sequence[Droppable], dropped: Pruned, excess: Excess, *, uploaded: bool
) -> None:
    """Drop kept inputs that the control plane has, or that it has not, kind by kind, until it is enough."""
    kinds = [kind for kind in order if kind != "telemetry"]
    if connection.one("SELECT 1 FROM inputs WHERE uploaded = ? LIMIT 1", int(uploaded)) is None:
        return
    for place, kind in enumerate(kinds):
        while (bytes_left := excess()) > 0:
            found = connection.all(
                "SELECT k.digest, i.size_bytes FROM keepers k JOIN inputs i ON i.digest = k.digest "
                "WHERE k.kind = ? AND i.uploaded = ? AND NOT EXISTS (SELECT 1 FROM keepers o WHERE o.digest = k.digest "
                "AND o.kind NOT IN (SELECT value FROM json_each(?))) ORDER BY k.kept_at_ms, i.rowid LIMIT ?",
                kind,
                int(uploaded),
                json.dumps(kinds[: place + 1]),
                CHUNK_ROWS,
            )
            if not found:
                break
            first = _first_bytes(found, bytes_left)
            _drop(connection, list(first), kind, dropped, uploaded=uploaded)
            dropped.input_bytes += sum(first.values())


def drop_expired(
    connection: Connection, stations: Collection[str], until_ms: int, dropped: Pruned, *, others: bool = False
) -> None:
    """Drop what some stations, or all others, have kept since before a moment, unless another one keeps it as well."""
    while True:
        aged = connection.all(
            "SELECT k.digest, k.station, i.size_bytes, k.kind, i.uploaded, "
            "(SELECT count(*) FROM keepers o WHERE o.digest = k.digest) "
            "FROM keepers k JOIN inputs i ON i.digest = k.digest "
            "WHERE k.kept_at_ms < ? AND (k.station IN (SELECT value FROM json_each(?))) <> ? LIMIT ?",
            until_ms,
            json.dumps([*stations]),
            others,
            CHUNK_ROWS,
        )
        if not aged:
            return
        for digest, station, size, kind, uploaded, keepers in aged:
            if keepers == 1:
                _drop(connection, [digest], kind, dropped, uploaded=bool(uploaded), expired=True)
                dropped.input_bytes += size
            else:
                with connection.write:
                    connection.execute("DELETE FROM keepers WHERE digest = ? AND station = ?", (digest, station))


def empty_telemetry(connection: Connection, left: int, dropped: Pruned, excess: Excess = everything) -> None:
    """Empty up to so many windows of unsent telemetry, oldest first."""
    # The emptied row is an event in its place, so that the control plane can tell what it did not get.
    empty = (
        "json_object('kind', 'event', 'at_ms', at_ms, 'boot_id', '', 'name', 'telemetry_dropped', "
        "'severity', 'warning', 'station', station, 'detail', 'too much was waiting to be sent')"
    )
    while left > 0 and excess() > 0:
        with connection.write:
            changed = connection.execute(
                f"UPDATE rows SET kind = 'event', body = {empty} WHERE seq IN "  # noqa: S608 - constants
                "(SELECT seq FROM rows WHERE kind = 'telemetry' AND seq > (SELECT stored_through FROM state) "
                "ORDER BY seq LIMIT ?)",
                (min(left, CHUNK_ROWS),),
            ).rowcount
            count(connection, DROPPED_META, {"telemetry": changed})
        dropped.unsent_telemetry += changed
        left = left - changed if changed else 0


def count(connection: Connection, prefix: str, counts: Mapping[str, int]) -> None:
    """Add to the counts that are kept for good; to be called inside a transaction."""
    for name, more in counts.items():
        if more:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET value = CAST(CAST(value AS INTEGER) + excluded.value AS TEXT)",
                (prefix + name, str(more)),
            )


def counted(connection: Connection) -> dict[str, dict[str, int]]:
    """Return what was `dropped` and what was `left_out` (never written) since the record was begun, by kind.

    Kept inputs stand under what they were kept for; of them `unsent_inputs` were nowhere else, and of `expired_inputs`
    the time was over.

    Raises:
        StoreError: it could not be read.
    """
    found: dict[str, dict[str, int]] = {}
    for name, prefix in (("dropped", DROPPED_META), ("left_out", LEFT_OUT_META)):
        rows = connection.all("SELECT key, value FROM meta WHERE key GLOB ? ORDER BY key", f"{prefix}*")
        found[name] = {key.removeprefix(prefix): int(value) for key, value in rows if value.isdigit()}
    return found


def counted_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return what `counted` gives for people; nothing if there is nothing to tell."""
    parts = []
    dropped, left_out = counts.get("dropped", {}), counts.get("left_out", {})
    if gone := _named(dropped):
        lost = dropped.get("unsent_inputs", 0) + dropped.get("telemetry", 0)
        parts.append(f"dropped since this record began: {gone}; {lost} of them were nowhere else")
    if spared := _named(left_out):
        parts.append(f"not written for the budget of written bytes: {spared}")
    return "; ".join(parts)


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[kind]} {words}" for kind, words in _WORDS.items() if counts.get(kind))


def _first_bytes(found: Iterable[tuple[str, int]], bytes_left: float) -> dict[str, int]:
    """Return as many digests, with their sizes, as have to go and fit one transaction; at least one, and each once."""
    digests: dict[str, int] = {}
    total = 0
    for digest, size in found:
        if digests and (total >= bytes_left or total + size > CHUNK_BYTES):
            break
        total += 0 if digest in digests else size
        digests[digest] = size
    return digests


def _drop(
    connection: Connection, digests: list[str], kind: str, dropped: Pruned, *, uploaded: bool, expired: bool = False
) -> None:
    number = len(digests)
    counts = {kind: number, "unsent_inputs": 0 if uploaded else number, "expired_inputs": number if expired else 0}
    with connection.write:
        for digest in digests:
            for table in ("uploads", "keepers", "inputs"):
                connection.execute(f"DELETE FROM {table} WHERE digest = ?", (digest,))  # noqa: S608 - constants
        count(connection, DROPPED_META, counts)
    for name, more in {**counts, "uploaded_inputs": number if uploaded else 0}.items():
        setattr(dropped, name, getattr(dropped, name) + more)
