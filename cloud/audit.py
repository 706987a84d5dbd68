"""Who changed what and why: one row for every change that a person or the conductor makes.

Rules:
- Written in the same transaction as the change itself.
"""

from typing import Any

from sqlalchemy import Connection

from cloud import tables

CONDUCTOR = "conductor"
"""The name under which rollouts act by themselves."""


def record(
    connection: Connection, *, at_ms: int, who: str, what: str, why: str = "", data: dict[str, Any] | None = None
) -> None:
    """Add one row to the audit log; `what` is in the past tense, for example `device_revoked`."""
    connection.execute(
        tables.audit_log.insert().values(at_ms=at_ms, who=who[:64], what=what[:64], why=why, data=data or {})
    )
