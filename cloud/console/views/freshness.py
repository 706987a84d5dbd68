"""How far what we know of a device can be trusted now, with the words for it; pure.

Rules:
- The rule itself is the fleet's (`cloud.fleet.freshness`): here it only gets its reason in words.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloud import fleet


@dataclass(frozen=True)
class Freshness:
    """The state, since when it holds, and when the device was last heard."""

    state: fleet.Freshness
    heard_at_ms: int | None
    since_ms: int | None
    why: str


def freshness(row: Mapping[Any, Any], now_ms: int) -> Freshness:
    """Return how fresh a device is, from its row of `devices` joined with `device_state`."""
    heard = row["last_heard_at_ms"] or None
    state, since = fleet.freshness(
        last_heard_at_ms=heard,
        interval_s=row["interval_s"],
        online=bool(row["online"]),
        presence_at_ms=row["presence_at_ms"],
        now_ms=now_ms,
    )
    if state == "unknown":
        return Freshness(state, None, None, "has enrolled, but has never been heard")
    if state == "fresh":
        return Freshness(state, heard, None, "")
    gone = since is not None and since == row["presence_at_ms"] and not row["online"]
    return Freshness(state, heard, since, "its connection ended" if gone else "silent for longer than it promised")
