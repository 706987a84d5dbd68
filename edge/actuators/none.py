"""Does nothing, for stations where a person or another system acts on the record."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.actuators.interface import Place
from edge.actuators.settings import NoneSettings
from edge.errors import ActuatorError
from edge.settings import read_settings
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock


class NoneActuator:
    """Takes every action and says so."""

    kind = "none"
    deadline_ms = 1000.0
    confirms_later = False

    def __init__(self) -> None:
        self._closed = False

    def look(self) -> str | None:
        return None

    def act(self, decision: DecisionRow) -> str | None:
        self._refuse_closed()
        return f"nothing is wired: {decision.action}"

    def safe(self, why: str) -> None:  # noqa: ARG002 (the Protocol has it)
        self._refuse_closed()

    def stop(self, why: str) -> None:  # noqa: ARG002 (the Protocol has it)
        self._refuse_closed()

    def release(self) -> None:
        self._refuse_closed()

    def close(self) -> None:
        self._closed = True

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ActuatorError("the actuator is closed", retry=False)


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> NoneActuator:  # noqa: ARG001
    """Return the actuator that does nothing.

    Raises:
        ConfigError: there is a setting.
    """
    read_settings(NoneSettings, settings, where="actuator none")
    return NoneActuator()
