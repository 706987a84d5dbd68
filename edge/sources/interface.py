"""What every source gives: one window after another; and what some can do besides."""

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from edge.sources.heard import Heard
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


@dataclass(frozen=True)
class News:
    """Something that a source has to tell besides its windows; becomes an event."""

    name: str
    """In the past tense, for example `frames_skipped`."""
    detail: str
    severity: Literal["info", "warning", "alarm"] = "info"
    data: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Telling(Protocol):
    """A source that is open while what it reads from may be away, or that counts what it passes over."""

    @property
    def problem(self) -> str | None:
        """Why there is nothing usable now, or None."""
        ...

    def news(self) -> list[News]:
        """Return what is to be told since the last call."""
        ...


@dataclass(frozen=True)
class Listening:
    """What a source that hears hears now."""

    level_dbfs: float
    """Root mean square of the newest block, of full scale."""
    active: bool
    """Whether there is speech in it, as the station's segmenter says."""


@runtime_checkable
class Hearing(Protocol):
    """A source of running sound."""

    @property
    def listening(self) -> Listening | None:
        """Return what is heard now, None for nothing; also from another thread."""
        ...

    def heard(self) -> list[Heard]:
        """Return what each second was like that was heard since the last call."""
        ...


@runtime_checkable
class Draining(Protocol):
    """A source that somebody waits at: what it has taken in is still decided when the station stops."""

    def drain(self) -> None:
        """Take nothing more in; `exhausted` is true when everything taken was read."""
        ...

    @property
    def waiting(self) -> int:
        """How many inputs were taken in and not read."""
        ...
