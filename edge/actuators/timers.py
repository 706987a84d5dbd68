"""Calls that are made later, in one thread of their own: the end of a pulse, the next heartbeat.

Rules:
- One call for each key: a later one takes the place of an earlier one.
- A call that raises ends nothing but itself; callers catch what they expect.
"""

import logging
import threading
import time
from collections.abc import Callable, Hashable

log = logging.getLogger(__name__)


class Timers:
    """Calls waiting for their time. Used from any thread."""

    def __init__(self, name: str) -> None:
        self._due: dict[Hashable, tuple[float, Callable[[], None]]] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def after(self, wait_s: float, key: Hashable, call: Callable[[], None]) -> None:
        """Make the call in `wait_s` seconds."""
        with self._changed:
            self._due[key] = time.monotonic() + wait_s, call
            self._changed.notify()

    def forget(self, key: Hashable) -> bool:
        """Take a call back; return whether one was waiting."""
        with self._changed:
            return self._due.pop(key, None) is not None

    def close(self) -> None:
        """Drop what waits and end the thread. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:
                log.exception("a timed call failed")

    def _next(self) -> Callable[[], None] | None:
        """Wait for the next call that is due; None when closed."""
        with self._changed:
            while not self._closed:
                now_s = time.monotonic()
                key = min(self._due, key=lambda one: self._due[one][0], default=None)
                if key is not None and self._due[key][0] <= now_s:
                    return self._due.pop(key)[1]
                self._changed.wait(None if key is None else self._due[key][0] - now_s)
            return None
