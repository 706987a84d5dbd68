"""How far apart the devices of a rollout switched, and how soon they were back: measured, by when we heard of it.

Rules:
- Our own clock counts, so that devices' clocks need not agree; what a device says late, because it was away, is late
  here too.
- A device counts once, with the first time that it said so.
"""

from dataclasses import dataclass
from statistics import median

from sqlalchemy import JSON, ColumnElement, Connection, and_, func, or_, select

from cloud.rollout_state import RolloutState
from cloud.tables import events, rollout_log

MAX_DEVICES = 10_000
BACK = ("rolled_back", "aborted")


@dataclass(frozen=True)
class Moved:
    """Devices that changed what decides."""

    devices: int
    first_ms: int
    half_s: float
    """From the first to the one in the middle."""
    spread_s: float
    """From the first to the last."""
    after_s: float | None
    """From the decision to the last, where there was one."""


def switched(connection: Connection, state: RolloutState) -> Moved | None:
    """Return how the devices came to decide with the new version; None while none has said so."""
    new = _digest("bundle") == state.candidate.digest
    return _moved(_times(connection, new, state, state.started_at_ms), None)


def went_back(connection: Connection, state: RolloutState) -> Moved | None:
    """Return how the devices came back; None where nothing was taken back, or none has said so."""
    log = rollout_log.c
    query = select(func.max(log.at_ms)).where(log.rollout == state.rollout, log.step.in_(BACK))
    decided_ms = connection.execute(query).scalar()
    if decided_ms is None:
        return None
    previous = {member.previous.digest for member in state.members.values() if member.previous is not None}
    returned = and_(events.c.name == "bundle_returned", _digest("bundle").in_(sorted(previous)))
    back = or_(_digest("before") == state.candidate.digest, returned)
    return _moved(_times(connection, back, state, decided_ms), decided_ms)


def _digest(which: str) -> ColumnElement[str]:
    body = events.c.body
    assert isinstance(body.type, JSON)
    found: ColumnElement[str] = body["data", which, "digest"].as_string()
    return found


def _times(connection: Connection, said: ColumnElement[bool], state: RolloutState, since_ms: int) -> list[int]:
    c = events.c
    query = (
        select(c.device, func.min(c.received_at_ms))
        .where(c.name.in_(("bundle_swapped", "bundle_returned")), c.received_at_ms >= since_ms, said)
        .group_by(c.device)
        .limit(MAX_DEVICES)
    )
    return sorted(row[1] for row in connection.execute(query) if row.device in state.members)


def _moved(times_ms: list[int], decided_ms: int | None) -> Moved | None:
    if not times_ms:
        return None
    first, last = times_ms[0], times_ms[-1]
    after_s = None if decided_ms is None else (last - decided_ms) / 1000
    return Moved(len(times_ms), first, (median(times_ms) - first) / 1000, (last - first) / 1000, after_s)
