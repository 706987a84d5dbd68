"""Where requests wait for the pipeline: bounded in number and bytes, and nobody is left without an answer.

Rules:
- What does not fit is refused at once, with the time after which it should fit; a batch is taken whole or not at all.
- Who has given up is not decided any more; who waits when it closes is told so, also if the pipeline had begun on it.
- Only encoded bytes wait here: a hundred small pictures must not become gigabytes of pixels.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.clock import Clock
from edge.errors import SourceError
from edge.wire.rows import DecisionRow

_SMOOTHING = 0.2


class Busy(Exception):  # noqa: N818 - it is an answer, not an error
    """There is no room now."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"busy: try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class TooMuch(Exception):  # noqa: N818 - it is an answer, not an error
    """There will never be room for all of these at once."""


class Stopping(Exception):  # noqa: N818 - it is an answer, not an error
    """Nothing is taken in any more."""


@dataclass(eq=False)
class Item:
    """One input that somebody waits for."""

    raw: bytes
    name: str
    key: str
    media_type: str
    settle: Callable[[DecisionRow | None, str], None]
    """Takes the decision, or None and why there is none. Called once, from any thread; neither waits nor fails."""
    arrived_s: float = 0.0
    given_up: bool = field(default=False)


class Inbox:
    """Takes items from the server's thread and gives them to the pipeline's."""

    def __init__(self, clock: Clock, max_waiting: int, max_bytes: int) -> None:
        self._clock, self._max_waiting, self._max_bytes = clock, max_waiting, max_bytes
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._begun: Item | None = None
        self._mean_s = 0.0
        self._draining = self._closed = False
        self.refused = 0
        """Items for which there was no room."""
        self.asked_s = -math.inf
        """When the pipeline asked for an item last; before it asks for the first, its bundle may not be open yet."""

    @property
    def waiting(self) -> int:
        return len(self._items)

    @property
    def draining(self) -> bool:
        """Whether nothing is taken in any more."""
        return self._draining or self._closed

    @property
    def exhausted(self) -> bool:
        return self._closed or (self._draining and not self._items)

    def put(self, items: Sequence[Item]) -> None:
        """Take all of these in, or none.

        Raises:
            TooMuch: they are more than it ever holds.
            Busy: there is no room for all of them now.
            Stopping: it is being emptied or closed.
        """
        size = sum(len(item.raw) for item in items)
        if len(items) > self._max_waiting or size > self._max_bytes:
            raise TooMuch(f"expected at most {self._max_waiting} inputs of {self._max_bytes:,} bytes together")
        with self._changed:
            if self.draining:
                raise Stopping
            if len(self._items) + len(items) > self._max_waiting or self._bytes + size > self._max_bytes:
                self.refused += len(items)
                raise Busy(max(1, math.ceil(self._mean_s * len(self._items))))
            for item in items:
                item.arrived_s = self._clock.monotonic_s()
                self._items.append(item)
            self._bytes += size
            self._changed.notify_all()

    def refuse(self) -> None:
        """Count one that found no room before its input was there."""
        with self._changed:
            self.refused += 1

    def take(self, wait_s: float) -> Item | None:
        """Return the oldest item that somebody still waits for, or None if none came in time.

        Raises:
            SourceError: it is closed.
        """
        until_s = self._clock.monotonic_s() + wait_s
        with self._changed:
            while True:
                if self._closed:
                    raise SourceError("the source is closed", retry=False)
                self.asked_s = self._clock.monotonic_s()
                while self._items:
                    item = self._items.popleft()
                    self._bytes -= len(item.raw)
                    if not item.given_up:
                        self._begun = item
                        return item
                if self._draining or self.asked_s >= until_s:
                    return None
                self._changed.wait(until_s - self.asked_s)

    def took(self, seconds: float) -> None:
        """Note that the item taken last was decided, and how long that took."""
        self._begun = None
        self._mean_s += _SMOOTHING * (seconds - self._mean_s)

    def drain(self) -> None:
        """Take nothing more in."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def close(self) -> None:
        """Tell whoever waits that it ends here. Safe to call twice."""
        with self._changed:
            self._closed = True
            left = [*filter(None, [self._begun]), *self._items]
            self._begun = None
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
        for item in left:
            item.settle(None, "the device is stopping")
