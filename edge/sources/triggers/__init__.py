"""Triggers: what tells a camera that a part is in place, each behind the same `Trigger`.

Rules:
- To add one: a file with an `open_trigger` like those here, and a line in `TRIGGERS`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.lazy import find

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources.triggers.interface import Trigger

TRIGGERS = {
    "line": "edge.sources.triggers.line:open_trigger",
    "gpio": "edge.sources.triggers.gpio:open_trigger",
    "modbus": "edge.sources.triggers.modbus:open_trigger",
    "rate": "edge.sources.triggers.rate:open_trigger",
}
EXTRAS = {"gpio": "gpio", "modbus": "modbus"}


def open_trigger(settings: Mapping[str, Any], *, clock: "Clock") -> "Trigger":
    """Make a trigger; it begins to fire when it is started.

    Args:
        settings: `kind`, a key of `TRIGGERS`, and the trigger's own settings.
        clock: time for rates.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
    """
    own = dict(settings)
    opener = find(TRIGGERS, str(own.pop("kind", "")), what="trigger", extras=EXTRAS)
    trigger: Trigger = opener(own, clock=clock)
    return trigger
