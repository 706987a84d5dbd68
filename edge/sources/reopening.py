"""A source that opens itself again: wraps any other, so that the pipeline never sees one go away.

Rules:
- A source that fails is closed and opened again with back-off, for ever; each loss and each return is told once.
- A wrong setting (`ConfigError`) is not tried faster: it is told and tried again at the longest pause, because a
  device may be configured before its camera or folder is there.
- A source that reconnects by itself is asked for its state and its news after each read; the others cost nothing.
"""

import threading
from collections.abc import Callable
from typing import Protocol, cast

from edge.clock import Clock
from edge.errors import ConfigError, SourceError
from edge.sources.heard import Heard
from edge.sources.interface import Listening, News, Source, Telling
from edge.values import Window

WAIT_MIN_S, WAIT_MAX_S = 0.25, 30.0
"""Pauses between two tries to open: short enough for a cable put back in, long enough to leave the processor alone."""


class Tell(Protocol):
    """Records that the source was lost (with why) or found again (None)."""

    def __call__(self, problem: str | None) -> None: ...


class ReopeningSource:
    """A source that is there as soon as it can be. Used by one thread."""

    def __init__(
        self,
        kind: str,
        open_inner: Callable[[], Source],
        clock: Clock,
        tell: Tell,
        tell_news: Callable[[News], None] | None = None,
    ) -> None:
        self.kind = kind
        self.problem: str | None = None
        """Why there is nothing to read, or None."""
        self._open_inner = open_inner
        self._clock = clock
        self._tell = tell
        self._tell_news = tell_news
        self._inner: Source | None = None
        self._telling: Telling | None = None
        self._failures = 0
        self._next_try_s = 0.0
        self._closed = threading.Event()

    def read(self, wait_s: float) -> Window | None:
        """Return the next window, or None if none came in time or the source is away."""
        try:
            if self._inner is None and not self._reopen(wait_s):
                return None
            assert self._inner is not None
            window = self._inner.read(wait_s)
            if self._telling is not None:
                self._listen(self._telling)
            return window
        except (SourceError, ConfigError) as error:
            self._lost(error)
            return None

    @property
    def exhausted(self) -> bool:
        return self._inner is not None and self._inner.exhausted

    @property
    def listening(self) -> Listening | None:
        """What is heard now, if the source hears; also from another thread."""
        found: Listening | None = getattr(self._inner, "listening", None)
        return found

    def heard(self) -> list[Heard]:
        """Return what was heard since the last call, of a source that hears; in the thread that reads."""
        heard = getattr(self._inner, "heard", None)
        return heard() if heard is not None else []

    def drain(self) -> bool:
        """Let the source take nothing more in; return whether it is one that is to be read empty."""
        drain = getattr(self._inner, "drain", None)  # asked for by name: a source may be wrapped in another
        if drain is not None:
            drain()
        return drain is not None

    @property
    def waiting(self) -> int:
        """How many inputs a source that is read empty still holds."""
        return int(getattr(self._inner, "waiting", 0))

    def close(self) -> None:
        """Close the source and wake a waiting `read`. Safe to call twice."""
        self._closed.set()
        if self._inner is not None:
            self._inner.close()
            self._inner = self._telling = None

    def _reopen(self, wait_s: float) -> bool:
        left_s = self._next_try_s - self._clock.monotonic_s()
        if left_s > 0:
            self._closed.wait(min(left_s, wait_s))
            return False
        self._inner = self._open_inner()
        self._telling = cast(Telling, self._inner) if hasattr(self._inner, "news") else None
        if self.problem is not None:
            self.problem = None
            self._tell(None)
        self._failures = 0
        return True

    def _listen(self, inner: Telling) -> None:
        problem = inner.problem
        if (problem is None) != (self.problem is None):
            self._tell(problem)
        self.problem = problem
        for item in inner.news():
            if self._tell_news is not None:
                self._tell_news(item)

    def _lost(self, error: SourceError | ConfigError) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = self._telling = None
        self._failures += 1
        pause_s = WAIT_MAX_S if isinstance(error, ConfigError) else min(WAIT_MAX_S, WAIT_MIN_S * 2.0**self._failures)
        self._next_try_s = self._clock.monotonic_s() + pause_s
        if self.problem is None:
            self._tell(str(error))
        self.problem = str(error)
