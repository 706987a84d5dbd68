"""Keeps the plain messages of a group together: few statements for many messages.

Rules:
- Plain is a batch without bad rows and without events that ask for more than to be kept, a live state, a live birth.
  Everything else is kept one message after the other by `cloud.ingest`, to the same effect.
- A device's row in `devices` is locked first, in the order of names: two copies that hear the same device take turns,
  and never wait for each other in a circle.
- Where something turns out not to be plain (a hole was filled, so that what came before its turn may ask for more),
  `NotPlain` is raised, and nothing was kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, exists, select

from cloud import tables
from cloud.engines import insert_new, upsert_many
from cloud.erasure import kept_anew
from cloud.parsing import Batch, merge
from cloud.telemetry.queue import note_health, note_windows
from edge.wire.messages import Presence, Reported
from edge.wire.rows import ANSWERED_EVENT, FORGOTTEN_EVENT, SERVER_ANSWERED_EVENT

MAX_RANGES = 1000
"""Of a stream beyond its first hole; what is further away is sent again by the device anyway."""
ASKING_EVENTS = frozenset({ANSWERED_EVENT, FORGOTTEN_EVENT, SERVER_ANSWERED_EVENT})
ROW_TABLES = {table.name: table for table in (tables.decisions, tables.outcomes, tables.events, tables.telemetry)}

Parsed = Batch | Reported | Presence
Stream = tuple[str, str]
"""Device and incarnation."""


class NotPlain(Exception):  # noqa: N818  (what it is, not an accident)
    """These messages have to be kept one after the other."""


@dataclass(frozen=True)
class Kept:
    """What became of a group."""

    stored_through: dict[Stream, int]
    """To be acknowledged."""
    with_wishes: set[str]
    """Devices of which something waits for a person, and may have to be sent."""
    strangers: list[int]
    """Places in the group of messages of devices that are not in the fleet."""


def is_plain(parsed: Parsed, *, retained: bool) -> bool:
    """Return whether a message may be kept together with others."""
    if isinstance(parsed, Batch):
        return not parsed.bad and not any(row["name"] in ASKING_EVENTS for row in parsed.rows.get("events", ()))
    return not retained and (isinstance(parsed, Reported) or parsed.online)


def keep(connection: Connection, group: Sequence[Parsed], now_ms: int, altered: Callable[[str, Batch], None]) -> Kept:
    """Keep plain messages in the caller's transaction.

    Args:
        connection: a transaction of `CloudStore.append`.
        group: plain messages, in the order in which they came.
        now_ms: when that was.
        altered: looks for rows of a table and batch whose number another content has, after some were there already.

    Raises:
        NotPlain: they have to be kept one after the other.
    """
    members = _members(connection, {one.device for one in group})
    strangers = [place for place, one in enumerate(group) if one.device not in members]
    heard = [one for one in group if one.device in members]
    batches = [one for one in heard if isinstance(one, Batch)]
    windows = note_windows(connection, batches)
    stored_through = _advance(connection, batches, now_ms)
    _insert(connection, batches, windows, altered)
    _let_come_again(connection, batches)
    _hear(connection, heard, now_ms)
    health = [(one.device, one.health.model_dump()) for one in heard if isinstance(one, Reported)]
    note_health(connection, health, now_ms)
    return Kept(stored_through, _with_wishes(connection, {batch.device for batch in batches}), strangers)


def state_fields(reported: Reported, now_ms: int) -> dict[str, Any]:
    """Return the columns of `device_state` that a reported state fills."""
    fields: dict[str, Any] = {"boot_id": reported.boot_id[:64], "interval_s": max(reported.interval_s, 0.1)}
    return fields | {"reported": reported.model_dump(mode="json"), "reported_at_ms": now_ms}


def presence_fields(presence: Presence, now_ms: int) -> dict[str, Any]:
    """Return the columns of `device_state` that a birth or a last will fills."""
    return {"boot_id": presence.boot_id[:64], "online": presence.online, "presence_at_ms": now_ms}


def _members(connection: Connection, devices: set[str]) -> set[str]:
    c = tables.devices.c
    query = select(c.device).where(c.device.in_(sorted(devices)), c.revoked_at_ms.is_(None)).order_by(c.device)
    return set(connection.execute(query.with_for_update(key_share=True)).scalars())


def _advance(connection: Connection, batches: Sequence[Batch], now_ms: int) -> dict[Stream, int]:
    """Move the streams on; return how far each is stored."""
    if not batches:
        return {}
    c = tables.streams.c
    wanted = {(batch.device, batch.incarnation) for batch in batches}
    query = select(c.device, c.incarnation, c.stored_through, c.beyond, c.first_seen_at_ms)
    query = query.where(c.device.in_(sorted({device for device, _ in wanted})))
    found = {(row.device, row.incarnation): row for row in connection.execute(query)}
    states = {key: (row.stored_through, row.beyond or []) for key, row in found.items() if key in wanted}
    before, changed = dict(states), list[dict[str, Any]]()
    for batch in batches:
        key = (batch.device, batch.incarnation)
        through, beyond = merge(*states.get(key, (0, [])), batch.seqs)
        if through > max(batch.seqs, default=0) and beyond != states.get(key, (0, []))[1]:
            raise NotPlain("a hole was filled")
        states[key] = through, beyond
    for key, (through, beyond) in states.items():
        if before.get(key) != (through, beyond):
            seen_ms = found[key].first_seen_at_ms if key in found else now_ms
            row = {"device": key[0], "incarnation": key[1], "stored_through": through, "beyond": beyond[:MAX_RANGES]}
            changed.append({**row, "first_seen_at_ms": seen_ms})
    upsert_many(connection, tables.streams, changed)
    return {key: through for key, (through, _) in states.items()}


def _insert(
    connection: Connection,
    batches: Sequence[Batch],
    windows: Sequence[Sequence[dict[str, Any]]],
    altered: Callable[[str, Batch], None],
) -> None:
    for name, table in ROW_TABLES.items():
        rows = [row for batch in batches for row in batch.rows.get(name, ())]
        new = [row for some in windows for row in some] if name == "telemetry" else rows
        if insert_new(connection, table, new) < len(rows):
            for batch in batches:
                if batch.rows.get(name):
                    altered(name, batch)


def _let_come_again(connection: Connection, batches: Sequence[Batch]) -> None:
    deciding = {batch.device for batch in batches if batch.rows.get("decisions")}
    c = tables.erasures.c
    if not deciding:
        return
    asked = set(connection.execute(select(c.device).where(c.device.in_(sorted(deciding))).distinct()).scalars())
    for batch in batches:
        if batch.device in asked:
            kept_anew(connection, batch.device, batch.rows.get("decisions", []))


def _hear(connection: Connection, heard: Sequence[Parsed], now_ms: int) -> None:
    states: dict[str, dict[str, Any]] = {}
    for one in heard:
        state = states.setdefault(one.device, {"device": one.device, "last_heard_at_ms": now_ms, "online": True})
        if isinstance(one, Reported):
            state |= state_fields(one, now_ms)
        elif isinstance(one, Presence):
            state |= presence_fields(one, now_ms)
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for state in states.values():
        alike.setdefault(tuple(sorted(state)), []).append(state)
    for rows in alike.values():
        upsert_many(connection, tables.device_state, rows)


def _with_wishes(connection: Connection, devices: set[str]) -> set[str]:
    if not devices:
        return set()
    d, w = tables.devices.c, tables.decisions.c
    waiting = exists().where(w.device == d.device, w.needs_review.is_(True)).correlate(tables.devices)
    return set(connection.execute(select(d.device).where(d.device.in_(sorted(devices)), waiting)).scalars())
