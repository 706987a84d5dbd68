"""What every source gives: one window after another."""

from typing import Protocol

from edge.values import Window


class Source(Protocol):
    """Somewhere pictures or sounds come from. Used by one thread."""

    kind: str

    def read(self, wait_s: float) -> Window | None:
        """Return the next window, or None if none came within `wait_s` seconds (a rate limit counts as none).

        An input that is there but unusable (truncated, empty, wrong format) is a window with `problem` set and
        `data` None: it must be recorded and deferred.

        Raises:
            SourceError: the source itself is gone; the caller closes it and opens it again with back-off.
        """
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nothing will ever come again (a list of files, not watched and not looped)."""
        ...

    def close(self) -> None:
        """Give everything back. Safe to call twice."""
        ...
