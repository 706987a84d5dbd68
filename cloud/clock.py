"""Wall and monotonic time of the control plane, passed in so that tests can hold it in their hands."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall and monotonic time."""

    def now_ms(self) -> int:
        """Return Unix milliseconds, UTC. May jump."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds since some fixed moment. Never goes back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()
