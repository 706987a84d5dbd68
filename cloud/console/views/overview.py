"""The first page: the work that waits for people, then the fleet.

Rules:
- Only what somebody can act on is work; what is in order is one line.
"""

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from cloud.alerts.tables import alerts
from cloud.console.views.alarms import Alarm, condensed, standing
from cloud.console.views.fleet import DeviceLine, Fleet, fleet
from cloud.console.views.rollouts import RolloutLine, open_rollouts
from cloud.tables import decisions, quarantine, rollouts


@dataclass(frozen=True)
class Waiting:
    """What waits for review."""

    n: int
    oldest_ms: int | None
    reasons: list[tuple[str, int]]
    """Of the oldest ones, most frequent first."""


@dataclass(frozen=True)
class Overview:
    """Everything on the first page."""

    waiting: Waiting
    rollouts: list[RolloutLine]
    away: list[DeviceLine]
    """Devices that are stale or unknown."""
    alarms: list[Alarm]
    not_understood: int
    """Messages in quarantine."""
    fleet: Fleet


def overview(connection: Connection, now_ms: int) -> Overview:
    """Return the first page."""
    alarms = condensed(standing(connection, now_ms))
    devices = fleet(connection, now_ms, alarms)
    return Overview(
        waiting=waiting(connection),
        rollouts=open_rollouts(connection),
        away=[line for line in devices.devices if line.freshness.state != "fresh"],
        alarms=alarms,
        not_understood=connection.execute(select(func.count()).select_from(quarantine)).scalar_one(),
        fleet=devices,
    )


def waiting(connection: Connection) -> Waiting:
    """Return how much waits for review."""
    c = decisions.c
    n, oldest = connection.execute(select(func.count(), func.min(c.at_ms)).where(c.needs_review.is_(True))).one()
    reasons = connection.execute(
        select(c.reason).where(c.needs_review.is_(True)).order_by(c.at_ms).limit(_LOOKED_AT)
    ).scalars()
    return Waiting(n, oldest, Counter(reason or "unsure" for reason in reasons).most_common())


def badges(connection: Connection) -> dict[str, int]:
    """Return the numbers beside the names of the pages."""
    reviews = select(func.count()).select_from(decisions).where(decisions.c.needs_review.is_(True))
    firing = select(func.count()).select_from(alerts).where(alerts.c.state == "firing", alerts.c.acked_ms.is_(None))
    running = select(func.count()).select_from(rollouts).where(rollouts.c.status.in_(("running", "paused")))
    return {
        "/review": connection.execute(reviews).scalar_one(),
        "/rollouts": connection.execute(running).scalar_one(),
        "/alerts": connection.execute(firing).scalar_one(),
    }


_LOOKED_AT = 500
"""Waiting decisions whose reasons are counted."""
