"""Keeps what devices send: message in, rows in the tables, acknowledgement out.

Rules:
- Rows and the stream's position are committed together; only then is `ack` published.
- The broker's copy is released after the commit, which bounds what is under way; and also when nothing could be
  kept, because devices send again and some brokers would deliver nothing more.
- The same row again changes nothing, so a device may send again whenever it likes.
- `ack` never reaches past a hole: what lies beyond one is kept and counted once the hole is filled.
- What cannot be read goes to quarantine with its reason and never holds up the rest.
- What a device was asked to forget is erased here too, files and rows, before that is acknowledged.
- A device is heard only under its own name, and only while it is in the fleet.
- A device that reports an older configuration than is wanted of it is told again: brokers forget, and of several
  copies an older message may come last.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cloud import tables, together
from cloud.blobs import BlobStore
from cloud.clock import Clock
from cloud.config import IngestConfig
from cloud.erasure import erase, erase_late, kept_anew
from cloud.errors import UnavailableError
from cloud.fleet import Publisher, missed_by
from cloud.onsite import keep_answers, keep_waiting_answers
from cloud.parsing import BadRow, Batch, Unreadable, excerpt, merge, parse, printable, shown
from cloud.store import CloudStore, insert_ignore, upsert
from cloud.telemetry.queue import note_health, note_windows
from cloud.together import MAX_RANGES, ROW_TABLES
from edge.wire.forgetting import forgotten
from edge.wire.messages import Ack, Presence, Reported
from edge.wire.rows import FORGOTTEN_EVENT
from edge.wire.topics import topic

log = logging.getLogger(__name__)

GROUP_BYTES = 2**20
"""Committed together; after an outage messages are large, and nobody shall wait seconds for an acknowledgement."""
WANTED_INPUTS = 16
"""Named in one acknowledgement; the next one names more."""
WANTED_LOOKED_AT = 500
"""Newest decisions of a device that wait for a person: a long queue must not slow every acknowledgement."""


@dataclass(frozen=True)
class Incoming:
    """One message from the broker."""

    topic: str
    payload: bytes
    retained: bool
    """An old one that the broker repeats; it says nothing about whether the device is there now."""
    release: Callable[[], None]
    """Tells the broker that it need not send it again; called once it is kept."""


@dataclass(frozen=True)
class _Read:
    """A message with what it says."""

    message: Incoming
    parsed: Batch | Reported | Presence | Unreadable

    @property
    def retained(self) -> bool:
        return self.message.retained

    @property
    def device(self) -> str:
        """Whose it is, or the topic where that cannot be read."""
        return self.message.topic if isinstance(self.parsed, Unreadable) else self.parsed.device

    @property
    def is_plain(self) -> bool:
        return not isinstance(self.parsed, Unreadable) and together.is_plain(self.parsed, retained=self.retained)


@dataclass
class IngestTally:
    """What was done since the start, for `/metrics`."""

    messages: int = 0
    dropped: int = 0
    quarantined: int = 0
    commits: int = 0
    commit_s: float = 0.0
    rows: Counter[str] = field(default_factory=Counter)


class Ingest:
    """Takes messages from the link and keeps them."""

    def __init__(
        self, store: CloudStore, inputs: BlobStore, clock: Clock, publisher: Publisher, config: IngestConfig
    ) -> None:
        self._store = store
        self._inputs = inputs
        self._erased: list[str] = []
        self._log_holds_erased = False
        self._clock = clock
        self._publisher = publisher
        self._config = config
        self._queue: asyncio.Queue[Incoming] = asyncio.Queue(config.queue_messages)
        self.tally = IngestTally()

    def submit(self, message: Incoming) -> None:
        """Take a message; called in the event loop. Dropped when too many wait: its device sends it again."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            message.release()
            self.tally.dropped += 1
            log.warning("too many messages wait; dropped one on %s, its device will send it again", message.topic)

    async def run(self) -> None:
        """Keep messages until cancelled; those that wait then are sent again by their devices."""
        while True:
            group = await self._next_group()
            before_s = self._clock.monotonic_s()
            answers = await asyncio.to_thread(self._answers, group)
            self.tally.messages += len(group)
            self.tally.commits += 1
            self.tally.commit_s += self._clock.monotonic_s() - before_s
            for name, payload, retain in answers:
                self._publisher.publish(name, payload, retain=retain)
            for message in group:
                message.release()

    def waiting(self) -> int:
        """Return how many messages wait to be kept."""
        return self._queue.qsize()

    def store_group(self, group: Sequence[Incoming]) -> list[Ack]:
        """Keep messages; return the acknowledgements to publish. Safe to repeat.

        Plain ones are one transaction. The others follow one by one in a second, and with them whatever else came
        from their devices, so that each device's messages keep their order.
        """
        return self._store_read([self._read(message) for message in group])

    def _answers(self, group: Sequence[Incoming]) -> list[tuple[str, bytes, bool]]:
        """Keep messages; return topic, payload and whether it is retained of what is to be published."""
        read = [self._read(message) for message in group]
        acks = self._store_read(read)
        answers = [(topic(ack.device, "ack"), ack.model_dump_json().encode(), False) for ack in acks]
        told = {one.parsed.device: one.parsed for one in read if isinstance(one.parsed, Reported) and not one.retained}
        try:
            missed = missed_by(self._store, told.values())
        except SQLAlchemyError as error:
            log.warning("could not look for missed desired states: %s", error)
            return answers
        return answers + [(topic(one.device, "desired"), one.model_dump_json().encode(), True) for one in missed]

    def _store_read(self, group: Sequence[_Read]) -> list[Ack]:
        alone = {one.device for one in group if not one.is_plain}
        together = [one for one in group if one.device not in alone]
        acks = self._store_together(together) if together else []
        others = [one for one in group if one.device in alone]
        return _newest(acks + (self._store_each(others) if others else []))

    def _store_together(self, group: Sequence[_Read]) -> list[Ack]:
        now_ms = self._clock.now_ms()
        try:
            with self._store.append() as connection:
                acks = self._keep_together(connection, group, now_ms)
            self._empty_log()
            return acks
        except OperationalError as error:
            return _kept_none(group, error)
        except Exception as error:  # noqa: BLE001  (whatever one message does to us, the others shall be kept)
            log.debug("%d messages are kept one by one: %s", len(group), error)
            return self._store_each(group)

    def _keep_together(self, connection: Connection, group: Sequence[_Read], now_ms: int) -> list[Ack]:
        def look_for_altered(name: str, batch: Batch) -> None:
            for reason, body in _altered(connection, name, batch, batch.rows[name]):
                self._quarantine(connection, topic(batch.device, "up"), now_ms, reason, body)

        parsed = [one.parsed for one in group if not isinstance(one.parsed, Unreadable)]
        kept = together.keep(connection, parsed, now_ms, look_for_altered)
        for one in parsed:
            if isinstance(one, Batch):
                self.tally.rows.update({name: len(rows) for name, rows in one.rows.items()})
        for place in kept.strangers:
            message, device = group[place].message, group[place].device
            self._quarantine(connection, message.topic, now_ms, _stranger(device), excerpt(message.payload))
        return [
            _ack(connection, device, incarnation, through, wishes=device in kept.with_wishes)
            for (device, incarnation), through in kept.stored_through.items()
        ]

    def _store_each(self, group: Sequence[_Read]) -> list[Ack]:
        """Keep messages one after the other in one transaction."""
        self._erased.clear()
        try:
            with self._store.write() as connection:
                acks = _newest([ack for one in group if (ack := self._keep(connection, one)) is not None])
            # Before the acknowledgement: whatever happens here, the device asks again.
            self._remove_erased()
            self._empty_log()
            return acks
        except (OperationalError, UnavailableError) as error:
            return _kept_none(group, error)
        except Exception as error:  # noqa: BLE001  (whatever one message does to us, the others shall be kept)
            if len(group) > 1:
                return _newest([ack for one in group for ack in self._store_each([one])])
            return self._keep_in_parts(group[0].message, error)

    def _empty_log(self) -> None:
        """Empty the log if it may still hold what was erased; with a later group if somebody reads it now."""
        self._log_holds_erased = self._log_holds_erased and not self._store.empty_log()

    async def _next_group(self) -> list[Incoming]:
        group = [await self._queue.get()]
        deadline_s = self._clock.monotonic_s() + self._config.group_wait_ms / 1000
        while len(group) < self._config.group_messages and sum(len(one.payload) for one in group) < GROUP_BYTES:
            if not self._queue.empty():
                group.append(self._queue.get_nowait())
                continue
            left_s = deadline_s - self._clock.monotonic_s()
            try:
                group.append(await asyncio.wait_for(self._queue.get(), max(left_s, 0)))
            except TimeoutError:
                break
        return group

    def _read(self, message: Incoming) -> _Read:
        try:
            return _Read(message, parse(message.topic, message.payload, received_at_ms=self._clock.now_ms()))
        except Unreadable as error:
            return _Read(message, error)
        except Exception as error:  # noqa: BLE001  (kept apart, with its reason, by `_keep`)
            return _Read(message, Unreadable(f"cannot be read: {type(error).__name__}: {error}"))

    def _keep(self, connection: Connection, one: _Read) -> Ack | None:
        now_ms, message, parsed = self._clock.now_ms(), one.message, one.parsed
        try:
            if isinstance(parsed, Unreadable):
                raise parsed
            _check_member(connection, parsed.device)
        except Unreadable as error:
            self._quarantine(connection, message.topic, now_ms, str(error), excerpt(message.payload))
            return None
        if isinstance(parsed, Batch):
            return self._keep_batch(connection, parsed, message.topic, now_ms)
        if isinstance(parsed, Reported):
            _keep_reported(connection, parsed, now_ms, retained=message.retained)
        else:
            _keep_presence(connection, parsed, now_ms, retained=message.retained)
        return None

    def _keep_batch(self, connection: Connection, batch: Batch, topic_name: str, now_ms: int) -> Ack:
        (windows,) = note_windows(connection, [batch])
        for name, rows in batch.rows.items():
            new = windows if name == "telemetry" else rows
            if insert_ignore(connection, ROW_TABLES[name], new) < len(rows):
                for reason, body in _altered(connection, name, batch, rows):
                    self._quarantine(connection, topic_name, now_ms, reason, body)
        keep_answers(connection, batch.rows.get("events", []), now_ms)
        events = batch.rows.get("events", [])
        self._log_holds_erased |= any(event["name"] == FORGOTTEN_EVENT for event in events)
        self._erased += erase(connection, events, now_ms)
        kept_anew(connection, batch.device, batch.rows.get("decisions", []))
        for bad in batch.bad:
            self._quarantine(connection, topic_name, now_ms, f"row {bad.seq}: {bad.reason}", bad.excerpt)
        self.tally.rows.update({name: len(rows) for name, rows in batch.rows.items()})
        stored_through = _advance(connection, batch, now_ms)
        if stored_through > max(batch.seqs, default=0):
            # What came before its turn may have answered what comes only now.
            keep_waiting_answers(connection, batch.device, batch.incarnation, stored_through, now_ms)
            self._erased += erase_late(connection, batch.device, batch.incarnation, stored_through, now_ms)
        _heard(connection, batch.device, now_ms, {"online": True})
        return _ack(connection, batch.device, batch.incarnation, stored_through, wishes=True)

    def _remove_erased(self) -> None:
        """Remove the files of inputs that nobody keeps any more."""
        while self._erased:
            with self._store.write() as connection:  # nobody brings one of them in meanwhile
                digest, inputs = self._erased[-1], tables.inputs.c
                if connection.execute(select(inputs.digest).where(inputs.digest == digest)).first() is None:
                    self._inputs.remove(digest)
            self._erased.pop()

    def _quarantine(self, connection: Connection, topic_name: str, now_ms: int, reason: str, payload: str) -> None:
        quarantine = tables.quarantine
        reason, payload = printable(reason[:2000]), printable(payload)
        digest = hashlib.sha256(f"{topic_name}\n{reason}\n{payload}".encode()).hexdigest()
        row = {"topic": printable(topic_name[:200]), "received_at_ms": now_ms, "reason": reason, "payload": payload}
        if insert_ignore(connection, quarantine, [{**row, "digest": digest}]):
            self.tally.quarantined += 1
            log.warning("quarantined a message on %s: %s", topic_name, reason)
            newest = connection.execute(select(quarantine.c.id).order_by(quarantine.c.id.desc()).limit(1)).scalar_one()
            connection.execute(quarantine.delete().where(quarantine.c.id <= newest - self._config.quarantine_rows))

    def _keep_in_parts(self, message: Incoming, error: Exception) -> list[Ack]:
        """Keep the rows that can be kept of a message that fails as a whole; the rest goes to quarantine."""
        now_ms = self._clock.now_ms()
        try:
            self._erased.clear()
            acks: list[Ack] = []
            with self._store.write() as connection:
                batch = parse(message.topic, message.payload, received_at_ms=now_ms)
                if isinstance(batch, Batch):
                    refused = _without_refused(connection, batch)
                    acks = [self._keep_batch(connection, refused, message.topic, now_ms)]
            if acks:
                self._remove_erased()
                return acks
        except Exception as second:  # noqa: BLE001  (see store_group)
            error = second
        try:
            with self._store.write() as connection:
                reason = f"cannot be kept: {type(error).__name__}: {error.args[0] if error.args else error}"
                self._quarantine(connection, message.topic, now_ms, reason, excerpt(message.payload))
        except SQLAlchemyError:
            log.exception("%s: neither kept nor quarantined", message.topic)
        return []


def _check_member(connection: Connection, device: str) -> None:
    devices = tables.devices.c
    query = select(devices.device).where(devices.device == device, devices.revoked_at_ms.is_(None))
    if connection.execute(query).first() is None:
        raise Unreadable(_stranger(device))


def _stranger(device: str) -> str:
    return f"{device} is not in the fleet"


def _kept_none(group: Sequence[_Read], error: Exception) -> list[Ack]:
    # Disk full, database locked or away, bucket away: no message is to blame.
    log.error("kept none of %d messages, to be sent again: %s", len(group), error)
    return []


def _ack(connection: Connection, device: str, incarnation: str, stored_through: int, *, wishes: bool) -> Ack:
    wanted = _wanted(connection, device) if wishes else []
    return Ack(device=device, incarnation=incarnation, stored_through=stored_through, wanted_inputs=wanted)


def _without_refused(connection: Connection, batch: Batch) -> Batch:
    """Return the batch with those rows marked bad that the database does not take."""
    rows: dict[str, list[dict[str, Any]]] = {}
    bad = list(batch.bad)
    for name, candidates in batch.rows.items():
        for row in candidates:
            attempt = connection.begin_nested()
            try:
                insert_ignore(connection, ROW_TABLES[name], [row])
                rows.setdefault(name, []).append(row)
            except (SQLAlchemyError, ValueError) as error:
                bad.append(BadRow(row["seq"], f"cannot be kept: {error.args[0]}", shown(row["body"])))
            finally:
                attempt.rollback()
    return replace(batch, rows=rows, bad=bad)


def _advance(connection: Connection, batch: Batch, now_ms: int) -> int:
    streams = tables.streams
    mine = (streams.c.device == batch.device, streams.c.incarnation == batch.incarnation)
    key = {"device": batch.device, "incarnation": batch.incarnation}
    insert_ignore(connection, streams, [{**key, "stored_through": 0, "first_seen_at_ms": now_ms}])
    query = select(streams.c.stored_through, streams.c.beyond).where(*mine).with_for_update()
    before, beyond = connection.execute(query).one()
    stored_through, left = merge(before, beyond or [], batch.seqs)
    if (stored_through, left) != (before, beyond or []):
        kept = {"stored_through": stored_through, "beyond": left[:MAX_RANGES]}
        connection.execute(streams.update().where(*mine).values(**kept))
    return stored_through


def _altered(connection: Connection, name: str, batch: Batch, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return rows whose number another content has: their device was set back to an older copy of its store."""
    table = ROW_TABLES[name]
    sent = {row["seq"]: row["body"] for row in rows}
    mine = (table.c.device == batch.device, table.c.incarnation == batch.incarnation)
    query = select(table.c.seq, table.c.body).where(*mine, table.c.seq.in_(list(sent)))
    altered = []
    for seq, body in connection.execute(query).all():
        if body == sent[seq] or body == forgotten(sent[seq]):
            continue  # a copy that was on its way when its row was erased
        if forgotten(body) == sent[seq]:
            # Erased at the device before it knew that we have the row; the request itself follows.
            connection.execute(table.update().where(*mine, table.c.seq == seq).values(body=sent[seq]))
            continue
        altered.append((f"row {seq}: its number was used before, for another {name[:-1]}", shown(sent[seq])))
    return altered


def _heard(connection: Connection, device: str, now_ms: int, fields: dict[str, Any]) -> None:
    upsert(connection, tables.device_state, {"device": device, "last_heard_at_ms": now_ms, **fields})


def _keep_reported(connection: Connection, reported: Reported, now_ms: int, *, retained: bool) -> None:
    fields = together.state_fields(reported, now_ms)
    if not retained:
        _heard(connection, reported.device, now_ms, {**fields, "online": True})
        note_health(connection, [(reported.device, reported.health.model_dump())], now_ms)
        return
    state = tables.device_state
    known = connection.execute(select(state.c.reported).where(state.c.device == reported.device)).one_or_none()
    if known is None:
        _heard(connection, reported.device, 0, {**fields, "online": False})
    elif known.reported is None or known.reported.get("sent_at_ms", 0) < reported.sent_at_ms:
        connection.execute(state.update().where(state.c.device == reported.device).values(**fields))


def _keep_presence(connection: Connection, presence: Presence, now_ms: int, *, retained: bool) -> None:
    state = tables.device_state
    query = select(state.c.boot_id, state.c.online).where(state.c.device == presence.device)
    known = connection.execute(query).one_or_none()
    if not presence.online and known is not None and known.boot_id not in (None, presence.boot_id[:64]):
        return  # the last will of an earlier boot
    fields = together.presence_fields(presence, now_ms)
    if presence.online and not retained:
        _heard(connection, presence.device, now_ms, fields)  # its own word; a will is the broker's
    elif known is None:
        _heard(connection, presence.device, 0, fields)
    elif bool(known.online) != presence.online or known.boot_id != presence.boot_id[:64]:
        connection.execute(state.update().where(state.c.device == presence.device).values(**fields))


def _wanted(connection: Connection, device: str) -> list[str]:
    decisions, inputs = tables.decisions, tables.inputs
    waiting = (
        select(decisions.c.input_digest, decisions.c.input_kept, decisions.c.at_ms)
        .where(decisions.c.device == device, decisions.c.needs_review.is_(True))
        .order_by(decisions.c.at_ms.desc())
        .limit(WANTED_LOOKED_AT)
        .subquery()
    )
    query = (
        select(waiting.c.input_digest)
        .outerjoin(inputs, inputs.c.digest == waiting.c.input_digest)
        .where(inputs.c.digest.is_(None), waiting.c.input_kept.is_(True))
        .order_by(waiting.c.at_ms)
        .limit(WANTED_INPUTS)
    )
    return list(dict.fromkeys(connection.execute(query).scalars()))


def _newest(acks: list[Ack]) -> list[Ack]:
    """Return one acknowledgement per stream: the last says all that the earlier ones said."""
    return list({(ack.device, ack.incarnation): ack for ack in acks}.values())
