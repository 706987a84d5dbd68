"""What every trigger does: call `fire` when a part is in place."""

from collections.abc import Callable
from typing import Protocol

Fire = Callable[[str], None]
"""Takes what the trigger says of the part, for example its number; an empty text if it says nothing. Never waits."""


class Trigger(Protocol):
    """Somewhere the word comes from that a part is in place. It fires from a thread of its own."""

    kind: str
    parts: bool
    """Whether each firing is a part that must be decided; a mere rate may be passed over when it is too fast."""
    problem: str | None
    """Why it cannot fire now, or None. It tries again by itself."""

    def start(self, fire: Fire) -> None:
        """Begin to fire.

        Raises:
            SourceError: it cannot listen at all, for example because its port is taken.
        """
        ...

    def close(self) -> None:
        """Stop firing and give everything back. Safe to call twice."""
        ...
