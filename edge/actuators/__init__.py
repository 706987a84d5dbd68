"""Actuators: the ways to the plant, each behind the same `Actuator`.

Rules:
- An actuator's libraries are imported when a station asks for it, never before.
- Settings are a pydantic model in `settings.py`; a wrong one is a `ConfigError` that names the field.
- To add one: a file with an `open_actuator` like those here, and a line in `ACTUATORS`; where opening moves something
  or takes it from a daemon that runs, a `probe` that does not, and a line in `PROBES`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.lazy import find

if TYPE_CHECKING:
    from edge.actuators.interface import Actuator, Place
    from edge.clock import Clock

ACTUATORS = {
    "gpio": "edge.actuators.gpio:open_actuator",
    "log": "edge.actuators.log:open_actuator",
    "modbus": "edge.actuators.modbus:open_actuator",
    "mqtt": "edge.actuators.mqtt:open_actuator",
    "none": "edge.actuators.none:open_actuator",
    "webhook": "edge.actuators.webhook:open_actuator",
}
EXTRAS = {"gpio": "gpio", "modbus": "modbus"}
PROBES = {kind: f"edge.actuators.{kind}:probe" for kind in ("gpio", "modbus", "mqtt", "webhook")}
CONFIRM_LATER = frozenset({"webhook"})
"""Actuators that take their actions from the record: what is pending at a start is theirs to finish, not unknown."""


def open_actuator(
    kind: str, settings: Mapping[str, Any], *, clock: "Clock", place: "Place | None" = None
) -> "Actuator":
    """Open an actuator.

    Args:
        kind: a key of `ACTUATORS`.
        settings: the actuator's own settings, as the config has them.
        clock: wall time for what it writes down.
        place: the station it stands at; None outside of a daemon.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
        ActuatorError: the plant cannot be reached.
    """
    from edge.actuators.interface import Place

    opener = find(ACTUATORS, kind, what="actuator", extras=EXTRAS)
    actuator: Actuator = opener(settings, clock=clock, place=place or Place())
    return actuator


def probe_actuator(kind: str, settings: Mapping[str, Any], *, clock: "Clock") -> str:
    """Return in words whether the plant is there, moving nothing and leaving a daemon that runs alone.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
        ActuatorError: the plant cannot be reached.
    """
    if kind in PROBES:
        words: str = find(PROBES, kind, what="actuator", extras=EXTRAS)(settings)
        return words
    open_actuator(kind, settings, clock=clock).close()
    return "opens"
