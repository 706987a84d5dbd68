"""What triggers share that watch something in a thread: they open it, watch it, and open it again when it is lost."""

import threading
from collections.abc import Callable
from typing import Protocol

from edge.sources.reopening import WAIT_MAX_S, WAIT_MIN_S
from edge.sources.triggers.interface import Fire

JOIN_S = 2.0


class Watched(Protocol):
    """Something that says how often it was set off."""

    def firings(self) -> int:
        """Wait for a moment and return how often it went off meanwhile; raises OSError when it is lost."""
        ...

    def close(self) -> None:
        """Give it back; raises nothing."""
        ...


class WatchingTrigger:
    """Fires for each time that what it watches went off."""

    parts = True

    def __init__(self, kind: str, open_watched: Callable[[], Watched]) -> None:
        """Take how to open what is watched; it raises OSError if it is not there."""
        self.kind = kind
        self.problem: str | None = None
        self._open_watched = open_watched
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, fire: Fire) -> None:
        self._thread = threading.Thread(target=self._run, args=(fire,), name=f"trigger-{self.kind}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(JOIN_S)

    def _run(self, fire: Fire) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                watched = self._open_watched()
                self.problem, failures = None, 0
                try:
                    self._watch(watched, fire)
                finally:
                    watched.close()
            except OSError as error:
                failures += 1
                self.problem = f"trigger {self.kind}: {error.strerror or error}"
                self._stop.wait(min(WAIT_MAX_S, WAIT_MIN_S * 2.0**failures))

    def _watch(self, watched: Watched, fire: Fire) -> None:
        while not self._stop.is_set():
            for _ in range(watched.firings()):
                fire("")
