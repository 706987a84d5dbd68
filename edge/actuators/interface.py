"""What every actuator does: carry out the action of a decision that is already on disk."""

from typing import Protocol

from edge.wire.rows import DecisionRow


class Actuator(Protocol):
    """The way to the plant. Used by one thread."""

    kind: str

    def act(self, decision: DecisionRow) -> str | None:
        """Carry out `decision.action`; return a word of detail or None.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def safe(self, why: str) -> None:
        """Take the station's safe action for a part whose decision could not be recorded.

        Raises:
            ActuatorError: the plant did not take it.
        """
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...
