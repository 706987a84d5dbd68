"""Compares a configuration that was read again with the one in force: what holds at once, what waits. Pure.

Rules:
- Live is what only says how a station decides or how much is kept; what opens a device, a file or a port waits for a
  restart.
- What is not named here needs a restart: a new key is never half applied.
- Keys are named as they stand in the file, `station.main.mode`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edge.config import Config

LIVE_STATION = (
    "mode",
    "audit_share",
    "deadline_ms",
    "defer_budget_per_h",
    "keep",
    "sound_consent",
    "keep_days",
    "on_disagreement",
)
LIVE_STORE = ("max_rows", "max_row_age_days", "max_input_bytes", "max_input_age_days", "max_bytes")


@dataclass(frozen=True)
class Reload:
    """What came of comparing."""

    config: Config
    """The configuration in force from now on: the old one with the live changes."""
    changed: list[str]
    """Keys that hold from the next window on."""
    restart: list[str]
    """Keys that differ and wait for a restart."""


def compare(old: Config, new: Config) -> Reload:
    """Return what a changed file means for a running daemon."""
    differ = sorted(_differing(old.model_dump(), new.model_dump()))
    live = [key for key in differ if _is_live(key, old)]
    stations = {
        name: section.model_copy(update=_taken(new.station.get(name), LIVE_STATION))
        for name, section in old.station.items()
    }
    store = old.store.model_copy(update=_taken(new.store, LIVE_STORE))
    return Reload(
        old.model_copy(update={"station": stations, "store": store}), live, [key for key in differ if key not in live]
    )


def _differing(old: Any, new: Any, place: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {*old, *new}:
            yield from _differing(old.get(key), new.get(key), f"{place}.{key}".lstrip("."))
    elif old != new:
        yield place


def _is_live(key: str, old: Config) -> bool:
    table, _, rest = key.partition(".")
    if table == "store":
        return rest in LIVE_STORE
    name, _, field = rest.partition(".")
    return table == "station" and name in old.station and field in LIVE_STATION


def _taken(new: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    return {} if new is None else {field: getattr(new, field) for field in fields}
