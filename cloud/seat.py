"""The conductor's seat: of several copies, one at a time moves rollouts, adds up, watches, and tells.

Rules:
- Whoever holds PostgreSQL's advisory lock, on a connection of its own, has the seat; when the holder or its connection
  dies, the database lets go of it by itself. A single control plane on SQLite has it always.
- Each taking of the seat is a term with a number of its own, and stands in the audit log.
- A lock alone cannot stop a holder that does not know yet that it has lost it. So every change is checked against the
  newest term, in the transaction that makes it (a fencing token): two copies never both move a rollout.
"""

import logging
import secrets
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from cloud import audit, tables
from cloud.clock import Clock
from cloud.engines import upsert
from cloud.errors import ConflictError
from cloud.store import CloudStore

log = logging.getLogger(__name__)

SEAT_LOCK = 0x11E51DC
SEAT = "conductor"
TAKEN = "conductor_seated"


class Seat:
    """The seat, as one copy sees it."""

    def __init__(self, store: CloudStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._copy = secrets.token_hex(4)
        self._connection: Connection | None = None
        self.term = 0
        """Of ours; 0 while we do not have the seat."""

    @property
    def is_ours(self) -> bool:
        """Whether we had the seat when we last asked for it; what only one copy should do waits for this.

        What follows from it may happen twice in the moment in which the seat moves; rollouts ask `check` besides.
        """
        return not self._store.is_shared or self.term > 0

    def hold(self) -> bool:
        """Take the seat if it is free; return whether we have it."""
        if not self._store.is_shared:
            return True
        if self._connection is not None and self._is_ours():
            return True
        self.leave()
        try:
            return self._take()
        except SQLAlchemyError as error:
            log.warning("could not ask for the conductor's seat: %s", error)
            self.leave()
            return False

    def check(self, connection: Connection) -> None:
        """Make sure, in the transaction of a change, that the seat is still ours.

        Raises:
            ConflictError: another copy has taken it.
        """
        if self._store.is_shared and _term(connection) != self.term:
            raise ConflictError(f"term {self.term} is over: another copy has the conductor's seat")

    def mark(self) -> dict[str, Any]:
        """Return what the audit log says about who moved a rollout."""
        return {"copy": self._copy, "term": self.term} if self._store.is_shared else {}

    def leave(self) -> None:
        """Give the seat up."""
        connection, self._connection, self.term = self._connection, None, 0
        if connection is not None:
            connection.invalidate()  # ends the session, and with it the lock
            connection.close()

    def _is_ours(self) -> bool:
        assert self._connection is not None
        try:
            self._connection.exec_driver_sql("SELECT 1")
            self._connection.commit()
        except SQLAlchemyError as error:
            log.warning("lost the conductor's seat: %s", error)
            return False
        return True

    def _take(self) -> bool:
        connection = self._store.engine.connect()
        got = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({SEAT_LOCK})").scalar()
        connection.commit()
        if not got:
            connection.close()
            return False
        self._connection = connection
        with self._store.write() as writing:
            now_ms, term = self._clock.now_ms(), _term(writing) + 1
            upsert(writing, tables.seats, {"name": SEAT, "term": term, "copy": self._copy, "taken_at_ms": now_ms})
            data = {"copy": self._copy, "term": term}
            audit.record(writing, at_ms=now_ms, who=audit.CONDUCTOR, what=TAKEN, data=data)
        self.term = term
        log.info("took the conductor's seat, term %d", term)
        return True


def _term(connection: Connection) -> int:
    seats = tables.seats.c
    return connection.execute(select(seats.term).where(seats.name == SEAT)).scalar() or 0
