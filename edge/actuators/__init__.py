"""Actuators: the ways to the plant, each behind the same `Actuator`.

Rules:
- An actuator's libraries are imported when a station asks for it, never before.
- Settings are a pydantic model beside the actuator; a wrong one is a `ConfigError` that names the field.
- To add one: a file with an `open_actuator` like those here, and a line in `ACTUATORS`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.lazy import find

if TYPE_CHECKING:
    from edge.actuators.interface import Actuator
    from edge.clock import Clock

ACTUATORS = {
    "log": "edge.actuators.log:open_actuator",
    "none": "edge.actuators.none:open_actuator",
}
EXTRAS: dict[str, str] = {}


def open_actuator(kind: str, settings: Mapping[str, Any], *, clock: "Clock") -> "Actuator":
    """Open an actuator.

    Args:
        kind: a key of `ACTUATORS`.
        settings: the actuator's own settings, as the config has them.
        clock: wall time for what it writes down.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
        ActuatorError: the plant cannot be reached.
    """
    opener = find(ACTUATORS, kind, what="actuator", extras=EXTRAS)
    actuator: Actuator = opener(settings, clock=clock)
    return actuator
