"""Whether anything that a page shows has changed, asked cheaply: the tag that live pages wait on.

Rules:
- Equal tags mean equal pages: counters of every table that is shown, each device's freshness, and the minute.
- One round trip of aggregates over small tables or index ends; never a scan of decisions or telemetry.
- A page asks with its last tag and gets 304 while nothing changed: no open connection to keep, drain or lose.
"""

import hashlib
from typing import Any

from sqlalchemy import Connection, func, select

from cloud.alerts.tables import alert_deliveries, alert_silences, alerts
from cloud.console.views.freshness import freshness
from cloud.tables import (
    audit_log,
    bundles,
    device_state,
    devices,
    quarantine,
    reviews,
    rollout_log,
    rollouts,
    streams,
)
from cloud.telemetry.tables import drift_states

MINUTE_MS = 60_000
"""Windows like "the last ten minutes" move on even where nothing happens."""


def tag(connection: Connection, now_ms: int, code: str) -> str:
    """Return the tag of what the database shows now; `code` stands for the version of the pages themselves."""
    counters = connection.execute(_COUNTERS).one()
    states = [(row["device"], freshness(row, now_ms).state) for row in connection.execute(_STATES).mappings()]
    text = repr((code, tuple(counters), states, now_ms // MINUTE_MS))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _scalar(expression: Any) -> Any:
    return select(expression).scalar_subquery()


_COUNTERS = select(
    _scalar(func.sum(streams.c.stored_through)),
    _scalar(func.max(device_state.c.last_heard_at_ms)),
    _scalar(func.sum(device_state.c.reported_at_ms)),
    _scalar(func.count(devices.c.device)),
    _scalar(func.max(devices.c.revoked_at_ms)),
    _scalar(func.max(reviews.c.id)),
    _scalar(func.max(rollout_log.c.id)),
    _scalar(func.max(rollouts.c.updated_at_ms)),
    _scalar(func.max(audit_log.c.id)),
    _scalar(func.max(bundles.c.published_at_ms)),
    _scalar(func.count(bundles.c.digest)),
    _scalar(func.max(quarantine.c.id)),
    _scalar(func.max(drift_states.c.updated_at_ms)),
    _scalar(func.max(alerts.c.id)),
    _scalar(func.max(alerts.c.fired_ms)),
    _scalar(func.max(alerts.c.resolved_ms)),
    _scalar(func.max(alert_silences.c.id)),
    _scalar(func.sum(alert_deliveries.c.attempts)),
)
_STATES = select(
    device_state.c.device,
    device_state.c.last_heard_at_ms,
    device_state.c.interval_s,
    device_state.c.online,
    device_state.c.presence_at_ms,
).order_by(device_state.c.device)
