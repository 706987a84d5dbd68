"""What is left of a row once the picture, sound or text behind it was erased on request. Pure; both sides use it.

Rules:
- A decision, its reason, scores and times stay: what was decided is no picture. Texts, and what says that an input is
  kept, go.
- Doing it twice changes nothing, so a row that was sent before it was erased is known again by either side.
- The device erases first; its event `inputs_forgotten` asks the control plane to do the same.
"""

from collections.abc import Mapping
from typing import Any

from edge.wire.rows import SERVER_ANSWERED_EVENT, SHADOW_DISAGREED_EVENT

ERASED = "erased on request"
"""In the place of words that held what was erased."""
HOLDING = {
    SERVER_ANSWERED_EVENT: ("text",),
    SHADOW_DISAGREED_EVENT: ("texts", "input"),
    "row_damaged": ("text",),
}
"""Events whose data hold texts or name a kept input, and under which keys."""


def forgotten(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row, as a JSON object, without what was erased; one that holds nothing of that is returned as it is.

    Args:
        row: a row of any kind, with or without its `seq`; it is not changed.
    """
    if row.get("kind") == "decision":
        return _decision(row)
    if row.get("kind") == "event" and row.get("name") in HOLDING:
        return _event(row, HOLDING[row["name"]])
    return dict(row)


def names_decision(row: Mapping[str, Any]) -> int | None:
    """Return the number of the decision whose text or input an event may hold, or None."""
    data = row.get("data")
    if row.get("kind") != "event" or row.get("name") not in HOLDING or not isinstance(data, Mapping):
        return None
    seq = data.get("decision_seq")
    return seq if isinstance(seq, int) else None


def _decision(row: Mapping[str, Any]) -> dict[str, Any]:
    given = row.get("input")
    kept = isinstance(given, Mapping) and (given.get("kept") or given.get("features") is not None)
    if not kept and row.get("text") is None:
        return dict(row)
    left = {key: value for key, value in row.items() if key != "text"}
    if isinstance(given, Mapping):
        left["input"] = {key: value for key, value in given.items() if key != "features"} | {"kept": False}
    return left | {"forgotten": True}


def _event(row: Mapping[str, Any], holding: tuple[str, ...]) -> dict[str, Any]:
    data = row.get("data")
    if not isinstance(data, Mapping) or not any(data.get(key) is not None for key in holding):
        return dict(row)
    return dict(row) | {"detail": ERASED, "data": {key: value for key, value in data.items() if key not in holding}}
