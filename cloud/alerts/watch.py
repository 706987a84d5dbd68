"""Looks at every rule, keeps how it stands, and tells the channels.

Rules:
- How alerts stand and what is to be told are one transaction; telling follows it, and is tried again until it is
  taken or given up, also after a restart.
- A rule that cannot be looked at (a bug, a table that is busy) is told in the log and stops no other.
- Nobody is told while a silence holds or once somebody has acknowledged; of an end only who was told of the beginning.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, or_, select
from sqlalchemy.exc import SQLAlchemyError

from cloud.alerts import rules
from cloud.alerts.book import is_silenced, standing_silences
from cloud.alerts.channels import FAILURES, tell
from cloud.alerts.signals import observe
from cloud.alerts.states import Observation, Standing, retry_after_s, step
from cloud.alerts.tables import alert_deliveries, alerts
from cloud.clock import Clock
from cloud.errors import CloudError
from cloud.fleet import DeviceView, Fleet
from cloud.seat import Seat
from cloud.store import CloudStore

log = logging.getLogger(__name__)

LOOK_S = 10.0
IDLE_FACTOR = 20.0
"""A look that takes long is followed by so many times its length of rest."""
MAX_ATTEMPTS = 15
"""Over ten hours, with the waits of `retry_after_s`."""
KEPT_MS = 90 * 86_400_000
MAX_OPEN_OF_RULE = 2000
"""Alerts of one rule that stand at the same time; a fleet that fails as a whole is one event."""
_FIELDS = ("began_ms", "fired_ms", "clear_ms", "resolved_ms", "words", "value")


class AlertWatch:
    """Looks at rules. One per control plane."""

    def __init__(
        self, store: CloudStore, clock: Clock, fleet: Fleet, watched: rules.WatchConfig, console_url: str = ""
    ) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self._rules = watched.rule
        self._channels = {channel.name: channel for channel in watched.channel}
        self._console_url = console_url

    async def run(self, seat: Seat) -> None:
        """Look and tell until cancelled, while this copy has the seat."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self.look, seat), name="alerts: look")
            group.create_task(self._again(self.tell_due, seat), name="alerts: tell")

    async def _again(self, what: Callable[[], object], seat: Seat) -> None:
        while True:
            before_s = self._clock.monotonic_s()
            try:
                if seat.is_ours:
                    await asyncio.to_thread(what)
            except (CloudError, SQLAlchemyError):
                log.exception("alerts: a look failed; the next one tries again")
            await asyncio.sleep(max(LOOK_S, IDLE_FACTOR * (self._clock.monotonic_s() - before_s)))

    def look(self) -> None:
        """Look at every rule once."""
        now_ms = self._clock.now_ms()
        fleet = self._fleet.devices()
        for rule in self._rules:
            try:
                self._look_at(rule, fleet, now_ms)
            except Exception:  # whatever one rule does to us, the others are looked at
                log.exception("alerts: rule %s could not be looked at", rule.name)
        with self._store.write() as connection:
            _forget(connection, now_ms, {rule.name for rule in self._rules})

    def tell_due(self) -> int:
        """Tell what is due; return how many were told."""
        now_ms, told = self._clock.now_ms(), 0
        d = alert_deliveries.c
        query = (
            select(alert_deliveries, alerts.c.rule, alerts.c.subject, alerts.c.severity, alerts.c.words,
                   alerts.c.value, alerts.c.began_ms, alerts.c.fired_ms, alerts.c.resolved_ms)
            .join(alerts, alerts.c.id == d.alert)
            .where(d.next_ms <= now_ms)
            .order_by(d.id)
            .limit(100)
        )  # fmt: skip
        with self._store.read() as connection:
            due = [dict(row) for row in connection.execute(query).mappings()]
        for row in due:
            error = self._tell(row, now_ms)
            told += not error
            with self._store.write() as connection:
                connection.execute(
                    alert_deliveries.update().where(d.id == row["id"]).values(**_after(row, error, now_ms))
                )
        return told

    def _look_at(self, rule: rules.Rule, fleet: list[DeviceView], now_ms: int) -> None:
        with self._store.read() as connection:
            seen = {one.subject[:200]: one for one in observe(connection, rule, fleet, now_ms)}
        with self._store.write() as connection:
            query = select(alerts).where(alerts.c.rule == rule.name, alerts.c.state.in_(("pending", "firing")))
            rows = {row["subject"]: dict(row) for row in connection.execute(query).mappings()}
            quiet = standing_silences(connection, now_ms)
            for subject in [*rows, *(name for name in seen if name not in rows)][:MAX_OPEN_OF_RULE]:
                # A subject that is not there any more is clear.
                one = seen.get(subject, Observation(subject, "clear", "", None))
                self._step(connection, rule, rows.get(subject), one, now_ms)
            self._note_tellings(connection, rule, quiet, now_ms)

    def _step(
        self, connection: Connection, rule: rules.Rule, row: Mapping[str, Any] | None, one: Observation, now_ms: int
    ) -> None:
        before = Standing() if row is None else Standing(row["state"], **{name: row[name] for name in _FIELDS})
        after = step(before, one, now_ms, for_s=rule.for_s, clear_s=rule.clear_s)
        if after == before:
            return
        if after.state == "none":
            if row is not None:
                connection.execute(alerts.delete().where(alerts.c.id == row["id"]))
            return
        values = {"state": after.state, **{name: getattr(after, name) for name in _FIELDS}}
        if row is None:
            key = {"rule": rule.name, "subject": one.subject[:200], "severity": rule.severity}
            connection.execute(alerts.insert().values(**key, **values))
        else:
            connection.execute(alerts.update().where(alerts.c.id == row["id"]).values(**values))
        if after.state != before.state and after.state != "pending":
            log.warning("alert %s: %s: %s", rule.name, after.state, after.words)

    def _note_tellings(
        self, connection: Connection, rule: rules.Rule, quiet: list[dict[str, Any]], now_ms: int
    ) -> None:
        """Note what is to be told: of what fires and nobody was told, and of what was told and is over."""
        if not rule.to:
            return
        c, d = alerts.c, alert_deliveries.c
        fires = and_(c.state == "firing", c.told_ms.is_(None), c.acked_ms.is_(None))
        query = select(c.id, c.subject).where(c.rule == rule.name, fires)
        for number, subject in connection.execute(query).all():
            if not is_silenced(rule.name, subject, quiet):
                self._note(connection, number, "fired", rule.to, now_ms)
                connection.execute(alerts.update().where(c.id == number).values(told_ms=now_ms))
        over = select(d.alert).where(d.what == "resolved")
        query = select(c.id, c.subject).where(
            c.rule == rule.name, c.state == "resolved", c.told_ms.is_not(None), c.id.not_in(over)
        )
        for number, _subject in connection.execute(query).all():
            self._note(connection, number, "resolved", rule.to, now_ms)

    def _note(self, connection: Connection, number: int, what: str, channels: list[str], now_ms: int) -> None:
        rows = [
            {"alert": number, "what": what, "channel": channel, "attempts": 0, "next_ms": now_ms, "error": ""}
            for channel in channels
        ]
        connection.execute(alert_deliveries.insert(), rows)

    def _tell(self, row: Mapping[str, Any], now_ms: int) -> str:
        channel = self._channels.get(row["channel"])
        if channel is None:
            return f"no channel is called {row['channel']!r} any more"
        names = ("rule", "subject", "severity", "words", "value", "began_ms", "fired_ms", "resolved_ms", "what")
        document = {**{name: row[name] for name in names}, "alert": row["alert"]}
        document["link"] = f"{self._console_url}/alerts" if self._console_url else ""
        try:
            tell(channel, document, number=row["id"], now_s=now_ms // 1000)
        except FAILURES as error:
            log.warning("alert %d was not taken by %s: %s", row["alert"], channel.name, error)
            return f"{type(error).__name__}: {error}"[:500]
        return ""


def _after(row: Mapping[str, Any], error: str, now_ms: int) -> dict[str, Any]:
    attempts = row["attempts"] + 1
    if not error:
        return {"attempts": attempts, "next_ms": None, "done_ms": now_ms, "error": ""}
    again = None if attempts >= MAX_ATTEMPTS else now_ms + int(1000 * retry_after_s(attempts))
    return {"attempts": attempts, "next_ms": again, "error": error if again else f"given up: {error}"}


def _forget(connection: Connection, now_ms: int, names: set[str]) -> None:
    """End what no rule looks at any more, and remove what ended long ago."""
    c, d = alerts.c, alert_deliveries.c
    standing = or_(c.state == "firing", c.state == "pending")
    ended = {"state": "resolved", "resolved_ms": now_ms}
    connection.execute(alerts.update().where(standing, c.rule.not_in(sorted(names))).values(**ended))
    old = select(c.id).where(c.state == "resolved", c.resolved_ms < now_ms - KEPT_MS)
    connection.execute(alert_deliveries.delete().where(d.alert.in_(old)))
    connection.execute(alerts.delete().where(c.state == "resolved", c.resolved_ms < now_ms - KEPT_MS))
