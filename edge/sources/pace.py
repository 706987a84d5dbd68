"""Keeps a source at or below a rate.

Rules:
- The schedule is kept without drift; after a pause at most `CATCH_UP_S` of it is made up for.
"""

import time

from edge.clock import Clock

CATCH_UP_S = 1.0


class Pace:
    """When the next input may be taken."""

    def __init__(self, rate_per_s: float | None, clock: Clock) -> None:
        """Take the rate; None for no limit."""
        self._rate_per_s, self._clock = rate_per_s, clock
        self._due_s = clock.monotonic_s()

    def wait(self, until_s: float) -> bool:
        """Wait until the next input may be taken, at most until a monotonic time; return whether it may."""
        if self._rate_per_s is None:
            return True
        wait_s = min(self._due_s, until_s) - self._clock.monotonic_s()
        if wait_s > 0:
            time.sleep(wait_s)
        return self._clock.monotonic_s() >= self._due_s

    @property
    def late_s(self) -> float:
        """How long ago the next input was due; 0 without a rate."""
        return 0.0 if self._rate_per_s is None else max(0.0, self._clock.monotonic_s() - self._due_s)

    def took(self) -> None:
        """Note that an input was taken."""
        if self._rate_per_s is not None:
            earliest_s = self._clock.monotonic_s() - CATCH_UP_S
            self._due_s = max(self._due_s, earliest_s) + 1 / self._rate_per_s
