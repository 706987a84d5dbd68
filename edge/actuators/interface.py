"""What every actuator does: carry out the action of a decision that is already on disk."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from edge.wire.rows import DecisionRow, EventRow, OutcomeRow

Output = Literal["pass", "divert", "accept", "hand_over", "safe", "stop"]
"""What a plant may have wired: an action each, and the stop of the line."""
OUTPUTS: tuple[Output, ...] = get_args(Output)


class Actuator(Protocol):
    """The way to the plant. Used by one thread.

    An actuator that has lost its plant finds it again by itself; until then `act` fails at once.
    """

    kind: str
    deadline_ms: float
    """An action that took longer has failed: its part has gone by."""
    confirms_later: bool
    """Whether it takes actions from the record and writes their outcomes there itself; `act` then only wakes it."""

    def look(self) -> str | None:
        """Return why the plant cannot be reached, as far as that is known without acting; None if nothing is known.

        Called while no part comes.
        """
        ...

    def act(self, decision: DecisionRow) -> str | None:
        """Carry out `decision.action`; return a word of detail or None.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def safe(self, why: str) -> None:
        """Take the station's safe action: for a part whose decision could not be recorded or carried out.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def stop(self, why: str) -> None:
        """Stop the line until `release`; where no stop is wired, take the safe action.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def release(self) -> None:
        """Let the line run again after a stop that a person has acknowledged.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...


class ActionStore(Protocol):
    """The part of the record that an actuator needs which takes its actions from there."""

    incarnation: str

    def pending_actions(self, station: str | None = None, *, limit: int = -1) -> list[int]: ...

    def decision(self, seq: int) -> DecisionRow | None: ...

    def append_outcome(self, row: OutcomeRow) -> None: ...

    def append_event(
        self,
        name: str,
        *,
        boot_id: str,
        severity: Literal["info", "warning", "alarm"] = "info",
        station: str | None = None,
        model: str | None = None,
        detail: str = "",
        data: dict[str, Any] | None = None,
    ) -> EventRow: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where an actuator stands."""

    device: str = "device"
    station: str = "station"
    boot_id: str = ""
    open_store: Callable[[], ActionStore] | None = None
    """Opens the device's record; None where there is none, as in tools."""
