"""Time, passed in so that tests can hold it in their hands."""

import time
import uuid
from pathlib import Path
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


def new_boot_id() -> str:
    """Return an identity for this start of the daemon."""
    return uuid.uuid4().hex


def kernel_boot_id() -> str:
    """Return the kernel's identity of this boot of the machine, or an empty string where there is none."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""
