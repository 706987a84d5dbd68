"""The alerts as they are kept: list them, acknowledge them, silence them.

Rules:
- Who acknowledges or silences says why; both go to the audit log in the same transaction.
- An acknowledged alert goes on until it is over, and nobody is told of it again. A silence ends by itself.
"""

from typing import Any

from sqlalchemy import Connection, and_, select

from cloud import audit
from cloud.alerts.states import silences
from cloud.alerts.tables import alert_deliveries, alert_silences, alerts
from cloud.clock import Clock
from cloud.errors import InvalidError, NotFoundError
from cloud.store import CloudStore

MAX_SILENCE_S = 30 * 86_400.0
"""A month: what is silenced for longer is a rule to change."""
MAX_SILENCES = 1000


class AlertBook:
    """Reads and changes alerts."""

    def __init__(self, store: CloudStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def alerts(self, *, open_only: bool = True, last: int = 200) -> list[dict[str, Any]]:
        """Return the alerts, newest first, each with its deliveries and whether it is silenced."""
        with self._store.read() as connection:
            return shown(connection, self._clock.now_ms(), open_only=open_only, last=last)

    def silences(self) -> list[dict[str, Any]]:
        """Return the silences that hold now."""
        with self._store.read() as connection:
            return standing_silences(connection, self._clock.now_ms())

    def acknowledge(self, number: int, *, who: str, why: str) -> dict[str, Any]:
        """Say that somebody looks after an alert; return it.

        Raises:
            NotFoundError: no such alert fires.
            InvalidError: without a reason.
        """
        _reason(why)
        now_ms = self._clock.now_ms()
        with self._store.write() as connection:
            mine = and_(alerts.c.id == number, alerts.c.state == "firing")
            row = connection.execute(select(alerts).where(mine)).mappings().one_or_none()
            if row is None:
                raise NotFoundError(f"no alert {number} fires", hint="`lineside-cloud alerts list` shows which do")
            connection.execute(
                alerts.update().where(mine).values(acked_by=who[:64], acked_ms=now_ms, ack_why=why[:2000])
            )
            data = {"alert": number, "rule": row["rule"], "subject": row["subject"]}
            audit.record(connection, at_ms=now_ms, who=who, what="alert_acknowledged", why=why, data=data)
            return next(one for one in shown(connection, now_ms, open_only=True, last=5000) if one["id"] == number)

    def silence(self, *, rule: str, subject: str, for_s: float, who: str, why: str) -> dict[str, Any]:
        """Tell nobody of some alerts for a time; empty names mean any.

        Raises:
            InvalidError: without a reason, for too long, or there are too many.
        """
        _reason(why)
        if not 0 < for_s <= MAX_SILENCE_S:
            raise InvalidError(f"for_s: expected up to {MAX_SILENCE_S:g} s, got {for_s:g}")
        now_ms = self._clock.now_ms()
        row = {"rule": rule, "subject": subject, "until_ms": now_ms + int(for_s * 1000), "who": who[:64]}
        with self._store.write() as connection:
            connection.execute(alert_silences.delete().where(alert_silences.c.until_ms <= now_ms))
            if len(standing_silences(connection, now_ms)) >= MAX_SILENCES:
                raise InvalidError(f"{MAX_SILENCES} silences hold already", hint="end some first")
            result = connection.execute(alert_silences.insert().values(**row, why=why[:2000], created_ms=now_ms))
            assert result.inserted_primary_key is not None
            number = int(result.inserted_primary_key[0])
            data = {"silence": number, "rule": rule or "any", "subject": subject or "any", "until_ms": row["until_ms"]}
            audit.record(connection, at_ms=now_ms, who=who, what="alerts_silenced", why=why, data=data)
        return {"id": number, **row, "why": why, "created_ms": now_ms}

    def end_silence(self, number: int, *, who: str) -> None:
        """Tell again.

        Raises:
            NotFoundError: there is no such silence.
        """
        with self._store.write() as connection:
            if connection.execute(alert_silences.delete().where(alert_silences.c.id == number)).rowcount == 0:
                raise NotFoundError(f"no silence {number}")
            data = {"silence": number}
            audit.record(connection, at_ms=self._clock.now_ms(), who=who, what="silence_ended", data=data)


def shown(connection: Connection, now_ms: int, *, open_only: bool, last: int) -> list[dict[str, Any]]:
    """Return the alerts as documents."""
    quiet = standing_silences(connection, now_ms)
    query = select(alerts).where(alerts.c.state != "pending").order_by(alerts.c.id.desc()).limit(last)
    query = query.where(alerts.c.state == "firing") if open_only else query
    found = [dict(row) for row in connection.execute(query).mappings()]
    d = alert_deliveries.c
    told: dict[int, list[dict[str, Any]]] = {}
    numbers = [row["id"] for row in found]
    for row in connection.execute(select(alert_deliveries).where(d.alert.in_(numbers)).order_by(d.id)).mappings():
        told.setdefault(row["alert"], []).append(
            {name: row[name] for name in ("channel", "what", "attempts", "done_ms", "next_ms", "error")}
        )
    return [
        {**row, "silenced": is_silenced(row["rule"], row["subject"], quiet), "told": told.get(row["id"], [])}
        for row in found
    ]


def standing_silences(connection: Connection, now_ms: int) -> list[dict[str, Any]]:
    """Return the silences that hold now."""
    query = select(alert_silences).where(alert_silences.c.until_ms > now_ms).order_by(alert_silences.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def is_silenced(rule: str, subject: str, quiet: list[dict[str, Any]]) -> bool:
    """Return whether any of these silences covers an alert."""
    return any(silences(one["rule"], one["subject"], of_rule=rule, of_subject=subject) for one in quiet)


def _reason(why: str) -> None:
    if not why.strip():
        raise InvalidError("why: expected a reason, got nothing", hint="it is kept in the audit log")
