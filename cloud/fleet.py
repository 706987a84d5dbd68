"""The devices: who they are, how they do, and what they should be.

Rules:
- Freshness is said honestly: `fresh`, `stale` since a moment, or `unknown`; silence for three promised intervals
  is stale.
- A desired state is kept first and published after the commit; all of them are published again whenever the
  broker is reached, because brokers forget.
- Every change of a desired state raises its `config_version` by one.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sqlalchemy import Connection, Row, select

from cloud import tables
from cloud.clock import Clock
from cloud.errors import NotFoundError
from cloud.store import CloudStore, upsert_many
from edge.wire.messages import Desired, Reported
from edge.wire.topics import topic

INTERVALS_TO_STALE = 3
"""So many promised reports in a row must be missing: one or two are lost to an ordinary reconnect."""
DEFAULT_INTERVAL_S = 30.0
"""Assumed for a device that has been heard but has not yet said how often it reports."""

Freshness = Literal["fresh", "stale", "unknown"]


class Publisher(Protocol):
    """Sends to the broker; may be called from any thread, never blocks and never raises."""

    def publish(self, topic_name: str, payload: bytes, *, retain: bool) -> None:
        """Hand a message over; dropped if the broker is away."""
        ...


@dataclass(frozen=True)
class DeviceView:
    """One device as the fleet knows it."""

    device: str
    profile: str
    site: str
    tags: list[str]
    models: list[str]
    enrolled_at_ms: int
    revoked_at_ms: int | None
    freshness: Freshness
    stale_since_ms: int | None
    online: bool
    last_heard_at_ms: int | None
    boot_id: str | None
    reported: dict[str, Any] | None
    """The last `reported` document as it came, or None."""
    desired: dict[str, Any] | None
    """The `desired` document as published, or None."""

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return dict(self.__dict__)


def freshness(
    *, last_heard_at_ms: int | None, interval_s: float | None, online: bool, presence_at_ms: int | None, now_ms: int
) -> tuple[Freshness, int | None]:
    """Return how a device's state may be read, and since when it is stale."""
    if not last_heard_at_ms:
        return "unknown", None
    if not online and presence_at_ms is not None:
        return "stale", presence_at_ms
    if now_ms - last_heard_at_ms > INTERVALS_TO_STALE * 1000 * (interval_s or DEFAULT_INTERVAL_S):
        return "stale", last_heard_at_ms
    return "fresh", None


class Fleet:
    """Reads and changes what is known of the devices."""

    def __init__(self, store: CloudStore, clock: Clock, publisher: Publisher) -> None:
        self._store = store
        self._clock = clock
        self._publisher = publisher
        self._publishing = threading.Lock()
        self._published: dict[str, int] = {}
        """Device → version published last."""

    def devices(self, *, with_revoked: bool = False) -> list[DeviceView]:
        """Return all devices by name."""
        query = _view_query().order_by(tables.devices.c.device)
        if not with_revoked:
            query = query.where(tables.devices.c.revoked_at_ms.is_(None))
        with self._store.read() as connection:
            return [self._view(row) for row in connection.execute(query)]

    def device(self, name: str) -> DeviceView:
        """Return one device.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._store.read() as connection:
            row = connection.execute(_view_query().where(tables.devices.c.device == name)).one_or_none()
        if row is None:
            raise NotFoundError(f"no device is called {name!r}", hint="`lineside-cloud devices` lists them")
        return self._view(row)

    def decisions(self, device: str, *, last: int = 50, station: str | None = None) -> list[dict[str, Any]]:
        """Return the newest decisions of a device as they came, newest first, each with its `outcome` if known."""
        decisions, outcomes = tables.decisions, tables.outcomes
        query = (
            select(decisions.c.incarnation, decisions.c.received_at_ms, decisions.c.needs_review, decisions.c.body)
            .where(decisions.c.device == device)
            .order_by(decisions.c.at_ms.desc(), decisions.c.seq.desc())
            .limit(last)
        )
        if station is not None:
            query = query.where(decisions.c.station == station)
        with self._store.read() as connection:
            found = [row._asdict() for row in connection.execute(query)]
            wanted = [(row["incarnation"], row["body"]["seq"]) for row in found]
            states = _outcome_states(connection, outcomes, device, wanted)
        return [
            {
                **row["body"],
                "device": device,
                "incarnation": row["incarnation"],
                "received_at_ms": row["received_at_ms"],
                "needs_review": row["needs_review"],
                "outcome": states.get((row["incarnation"], row["body"]["seq"])),
            }
            for row in found
        ]

    def events(self, device: str | None = None, *, last: int = 50, name: str | None = None) -> list[dict[str, Any]]:
        """Return the newest events of a device (or of all), newest first."""
        events = tables.events
        query = (
            select(events.c.device, events.c.incarnation, events.c.received_at_ms, events.c.body)
            .order_by(events.c.at_ms.desc(), events.c.seq.desc())
            .limit(last)
        )
        if device is not None:
            query = query.where(events.c.device == device)
        if name is not None:
            query = query.where(events.c.name == name)
        with self._store.read() as connection:
            return [
                {
                    **row.body,
                    "device": row.device,
                    "incarnation": row.incarnation,
                    "received_at_ms": row.received_at_ms,
                }
                for row in connection.execute(query)
            ]

    def telemetry(self, device: str, *, last: int = 50) -> list[dict[str, Any]]:
        """Return the newest telemetry windows of a device, newest first."""
        telemetry = tables.telemetry
        query = (
            select(telemetry.c.body)
            .where(telemetry.c.device == device)
            .order_by(telemetry.c.at_ms.desc(), telemetry.c.seq.desc())
            .limit(last)
        )
        with self._store.read() as connection:
            return [dict(body) for body in connection.execute(query).scalars()]

    def desired(self, device: str) -> Desired:
        """Return what a device should be; version 0 with nothing in it if nobody has said yet."""
        with self._store.read() as connection:
            return current_desired(connection, device)

    def set_desired(self, device: str, change: Callable[[Desired], Desired]) -> Desired:
        """Change what a device should be: keep it, then publish it. Return what is published.

        Nothing is kept or published if `change` returns an equal document.
        """
        with self._store.write() as connection:
            desired = self.change_desired(connection, device, change)
        self.publish([desired])
        return desired

    def change_desired(self, connection: Connection, device: str, change: Callable[[Desired], Desired]) -> Desired:
        """Do the same within the caller's transaction; the caller calls `publish` after its commit."""
        before = current_desired(connection, device)
        return self.keep_desired(connection, [(before, change(before))])[0]

    def keep_desired(self, connection: Connection, changes: Iterable[tuple[Desired, Desired]]) -> list[Desired]:
        """Keep desired states that were changed, each given as it was and as it shall be, in one statement for all.

        Returns:
            What is kept now, each with the next number of its device, or as it was where nothing changed.
        """
        now_ms, kept, rows = self._clock.now_ms(), [], []
        for before, wanted in changes:
            if wanted == before and before.config_version > 0:
                kept.append(before)
                continue
            version = before.config_version + 1
            after = wanted.model_copy(
                update={"device": before.device, "config_version": version, "issued_at_ms": now_ms}
            )
            kept.append(after)
            body = after.model_dump(mode="json")
            rows.append({"device": before.device, "config_version": version, "updated_at_ms": now_ms, "body": body})
        upsert_many(connection, tables.desired, rows)
        return kept

    def publish(self, documents: Iterable[Desired]) -> None:
        """Publish desired states, retained. Call it only after they are committed.

        Two threads may come in another order than their commits: an older state never follows a newer one.
        """
        with self._publishing:
            for desired in documents:
                if desired.config_version < self._published.get(desired.device, 0):
                    continue
                self._published[desired.device] = desired.config_version
                name = topic(desired.device, "desired")
                self._publisher.publish(name, desired.model_dump_json().encode(), retain=True)

    def republish_all(self) -> int:
        """Publish every desired state again; return how many."""
        query = (
            select(tables.desired.c.body)
            .join(tables.devices, tables.devices.c.device == tables.desired.c.device)
            .where(tables.devices.c.revoked_at_ms.is_(None))
        )
        with self._store.read() as connection:
            documents = [Desired.model_validate(body) for body in connection.execute(query).scalars()]
        self.publish(documents)
        return len(documents)

    def _view(self, row: Row[Any]) -> DeviceView:
        fields = row._asdict()
        state, since = freshness(
            last_heard_at_ms=fields["last_heard_at_ms"],
            interval_s=fields.pop("interval_s"),
            online=bool(fields["online"]),
            presence_at_ms=fields.pop("presence_at_ms"),
            now_ms=self._clock.now_ms(),
        )
        fields["online"] = bool(fields["online"])
        fields["last_heard_at_ms"] = fields["last_heard_at_ms"] or None
        return DeviceView(freshness=state, stale_since_ms=since, **fields)


def current_desired(connection: Connection, device: str) -> Desired:
    """Return the kept desired state of a device, or an empty one of version 0."""
    body = connection.execute(select(tables.desired.c.body).where(tables.desired.c.device == device)).scalar()
    return desired_state(device, body)


def desired_state(device: str, body: Any) -> Desired:
    """Return a kept document as a desired state, or an empty one of version 0 where there is none."""
    return Desired.model_validate(body) if body else Desired(device=device, config_version=0, issued_at_ms=0)


def missed_by(store: CloudStore, told: Iterable[Reported]) -> list[Desired]:
    """Return the desired states that are newer than what these devices say they have."""
    have = {one.device: one.config_version for one in told}
    if not have:
        return []
    c, members = tables.desired.c, tables.devices.c
    query = select(c.device, c.config_version).join(tables.devices, members.device == c.device)
    query = query.where(c.device.in_(sorted(have)), members.revoked_at_ms.is_(None))
    with store.read() as connection:
        versions = connection.execute(query).all()
        missing = [row.device for row in versions if row.config_version > have[row.device]]
        bodies = connection.execute(select(c.body).where(c.device.in_(missing))).scalars().all() if missing else []
    return [Desired.model_validate(body) for body in bodies]


def _view_query() -> Any:
    devices, state, desired = tables.devices.c, tables.device_state.c, tables.desired.c
    return (
        select(
            devices.device,
            devices.profile,
            devices.site,
            devices.tags,
            devices.models,
            devices.enrolled_at_ms,
            devices.revoked_at_ms,
            state.boot_id,
            state.online,
            state.presence_at_ms,
            state.last_heard_at_ms,
            state.interval_s,
            state.reported,
            desired.body.label("desired"),
        )
        .select_from(tables.devices)
        .outerjoin(tables.device_state, state.device == devices.device)
        .outerjoin(tables.desired, desired.device == devices.device)
    )


def _outcome_states(
    connection: Connection, outcomes: Any, device: str, wanted: list[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, Any]]:
    states: dict[tuple[str, int], dict[str, Any]] = {}
    for incarnation in {incarnation for incarnation, _ in wanted}:
        seqs = [seq for other, seq in wanted if other == incarnation]
        query = select(outcomes.c.decision_seq, outcomes.c.body).where(
            outcomes.c.device == device,
            outcomes.c.incarnation == incarnation,
            outcomes.c.decision_seq.in_(seqs),
        )
        states.update({(incarnation, row.decision_seq): row.body for row in connection.execute(query)})
    return states
