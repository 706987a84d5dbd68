"""Erases what a device was asked to forget: pictures and sounds that it has sent, and the texts in its rows.

Rules:
- A device's own event is the request (`inputs_forgotten`), and reaches its own rows only. A picture that another device
  has sent as well stays for that one.
- Doing it again changes nothing, so an event may come twice, and what comes late is erased when it has come.
- What is erased does not come back: a copy that is still on its way is refused, until a later decision keeps the same
  content anew.
- The first handling of a request stands in the audit log, with what was erased.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, or_, select

from cloud import audit, tables
from cloud.blobs import DIGEST_PATTERN
from cloud.store import insert_ignore
from edge.wire.forgetting import ERASED, HOLDING, forgotten
from edge.wire.rows import FORGOTTEN_EVENT
from edge.wire.topics import topic

MAX_NAMED = 2000
"""Rows and digests that one event may name; a device names 500."""
CHUNK = 500


def erase(connection: Connection, events: Sequence[Mapping[str, Any]], now_ms: int) -> list[str]:
    """Erase what these events ask for; return the digests whose files are to be removed once this is committed.

    Args:
        connection: the transaction that keeps the events themselves.
        events: rows of the table of events; those that ask for nothing are left alone.
        now_ms: when they came.
    """
    found: list[str] = []
    for event in events:
        if event["name"] == FORGOTTEN_EVENT:
            found += _Request(connection, event, now_ms).run()
    return found


def erase_late(connection: Connection, device: str, incarnation: str, through: int, now_ms: int) -> list[str]:
    """Erase once more what the stored events up to a number ask for: rows may have come after them."""
    events = tables.events
    mine = (events.c.device == device, events.c.incarnation == incarnation, events.c.seq <= through)
    found = connection.execute(select(events).where(events.c.name == FORGOTTEN_EVENT, *mine))
    return erase(connection, [dict(row) for row in found.mappings()], now_ms)


def kept_anew(connection: Connection, device: str, decisions: Sequence[Mapping[str, Any]]) -> None:
    """Let content come again that a device has kept anew after it was forgotten."""
    kept = {row["input_digest"]: row for row in decisions if row["input_kept"]}
    erasures = tables.erasures
    known = select(erasures).where(erasures.c.device == device, erasures.c.digest.in_([*kept]))
    for row in connection.execute(known).all() if kept else ():
        later = kept[row.digest]
        if later["incarnation"] != row.incarnation or later["seq"] > row.seq:
            mine = [erasures.c[name] == getattr(row, name) for name in ("device", "incarnation", "seq", "digest")]
            connection.execute(erasures.delete().where(*mine))


def is_erased(connection: Connection, device: str, digest: str) -> bool:
    """Return whether a device was asked to forget this content, and has not kept it anew."""
    erasures = tables.erasures
    query = select(erasures.c.seq).where(erasures.c.device == device, erasures.c.digest == digest).limit(1)
    return connection.execute(query).first() is not None


class _Request:
    """One event, handled."""

    def __init__(self, connection: Connection, event: Mapping[str, Any], now_ms: int) -> None:
        data = event["body"].get("data")
        data = dict(data) if isinstance(data, Mapping) else {}
        self._c, self._event, self._now_ms = connection, event, now_ms
        self._device, self._incarnation = event["device"], event["incarnation"]
        self._seqs = [seq for seq in _listed(data.get("seqs")) if isinstance(seq, int)]
        named = [digest for digest in _listed(data.get("digests")) if isinstance(digest, str)]
        self._digests = {digest for digest in named if DIGEST_PATTERN.fullmatch(digest)}
        before_ms, station = data.get("before_ms"), data.get("station")
        self._before_ms = before_ms if isinstance(before_ms, int) else None
        self._station = station if isinstance(station, str) else None
        self._why = str(data.get("why") or "")[:500]

    def run(self) -> list[str]:
        """Erase; return the digests whose files are to be removed."""
        rows = self._rows(tables.decisions) + self._rows(tables.events)
        rows += self._quarantined()
        gone, shared = self._inputs()
        if self._is_new():
            data = {"device": self._device, "incarnation": self._incarnation, "event": self._event["seq"]}
            counts = {"rows": rows, "inputs": len(gone), "kept_for_others": shared}
            asked = {"before_ms": self._before_ms, "station": self._station}
            audit.record(
                self._c,
                at_ms=self._now_ms,
                who=self._device,
                what=FORGOTTEN_EVENT,
                why=self._why,
                data={**data, **asked, **counts},
            )
        return gone

    def _rows(self, table: Table) -> int:
        """Erase the rows of a table that are asked for; return how many changed."""
        changed = 0
        for incarnation, seqs in self._asked(table).items():
            for start in range(0, len(seqs), CHUNK):
                mine = (table.c.device == self._device, table.c.incarnation == incarnation)
                some = select(table).where(*mine, table.c.seq.in_(seqs[start : start + CHUNK]))
                changed += sum(self._row(table, row) for row in self._c.execute(some).all())
        return changed

    def _asked(self, table: Table) -> dict[str, list[int]]:
        """Return the numbers of the rows that are asked for, by incarnation."""
        c = table.c
        mine = (c.device == self._device, c.incarnation == self._incarnation)
        wanted = [select(c.incarnation, c.seq).where(*mine, c.seq.in_(self._seqs))]
        late = [c.device == self._device, c.at_ms < (self._before_ms or 0)]
        if self._station is not None:
            late.append(or_(c.station == self._station, c.station.is_(None)))
        if table is tables.decisions:
            late.append(or_(c.input_kept.is_(True), c.body["text"].as_string().is_not(None)))
        else:
            holding = c.name.in_([*HOLDING])
            late.append(holding)
            # What came to a decision that the device no longer has, so that it could not name it.
            about = c.body["data"]["decision_seq"].as_integer().in_(self._seqs)
            wanted.append(select(c.incarnation, c.seq).where(*mine, holding, about))
        if self._before_ms is not None:
            wanted.append(select(c.incarnation, c.seq).where(*late))
        found: dict[str, list[int]] = {}
        for query in wanted:
            for incarnation, seq in self._c.execute(query).all():
                found.setdefault(incarnation, []).append(seq)
        return found

    def _row(self, table: Table, row: Any) -> bool:
        """Erase one row; return whether that changed it."""
        left = forgotten(row.body)
        if table is tables.decisions:
            self._digests.add(row.input_digest)
            values: dict[str, Any] = {"input_kept": False, "needs_review": False}
        else:
            if isinstance(digest := dict(row.body.get("data") or {}).get("input"), str):
                self._digests.add(digest)
            values = {"detail": str(left.get("detail", ""))[:4000]}
        if left == row.body:
            return False
        mine = [table.c[name] == getattr(row, name) for name in ("device", "incarnation", "seq")]
        self._c.execute(table.update().where(*mine).values(body=left, **values))
        return True

    def _quarantined(self) -> int:
        """Erase what was put aside of this device and asked for, and what nobody can tell of whether it was."""
        quarantine, changed = tables.quarantine, 0
        query = select(quarantine.c.id, quarantine.c.payload).where(quarantine.c.topic == topic(self._device, "up"))
        for number, payload in self._c.execute(query).all():
            left = self._left_of(payload)
            if left != payload:
                mine = quarantine.c.id == number
                self._c.execute(quarantine.update().where(mine).values(payload=left, digest=None))
                changed += 1
        return changed

    def _left_of(self, payload: str) -> str:
        try:
            row = json.loads(payload)
        except ValueError:
            return ERASED
        if not isinstance(row, dict) or "kind" not in row:
            return ERASED
        at_ms, before_ms = row.get("at_ms"), self._before_ms
        in_time = before_ms is not None and (not isinstance(at_ms, int) or at_ms < before_ms)
        left = forgotten(row)
        return json.dumps(left) if left != row and (in_time or row.get("seq") in self._seqs) else payload

    def _inputs(self) -> tuple[list[str], int]:
        """Take the device's inputs away; return those that nobody has sent any more, and how many others keep."""
        inputs, senders = tables.inputs.c, tables.input_senders.c
        gone, shared = [], 0
        for digest in sorted(self._digests):
            self._c.execute(
                tables.input_senders.delete().where(senders.digest == digest, senders.device == self._device)
            )
            others = [*self._c.execute(select(senders.device).where(senders.digest == digest)).scalars()]
            first = self._c.execute(select(inputs.device).where(inputs.digest == digest)).scalar()
            mark = {"device": self._device, "incarnation": self._incarnation, "seq": self._event["seq"]}
            insert_ignore(self._c, tables.erasures, [{**mark, "digest": digest, "at_ms": self._now_ms}])
            if others or first not in (None, self._device):
                shared += 1
                if first == self._device:
                    changed = tables.inputs.update().where(inputs.digest == digest)
                    self._c.execute(changed.values(device=others[0]))
                continue
            self._c.execute(tables.inputs.delete().where(inputs.digest == digest))
            gone.append(digest)
        return gone, shared

    def _is_new(self) -> bool:
        mark = {"device": self._device, "incarnation": self._incarnation, "seq": self._event["seq"]}
        return insert_ignore(self._c, tables.erasures, [{**mark, "digest": "", "at_ms": self._now_ms}]) > 0


def _listed(value: Any) -> list[Any]:
    return value[:MAX_NAMED] if isinstance(value, list) else []
