"""Waits for something to become true, with a deadline instead of a guess.

Rules:
- Who waits takes no more than half a core from what is waited for, unless one look takes very long.
"""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.01
REST_S = 0.1
"""After a look that took long comes a rest as long as it, at most so long."""


def wait_until(predicate: Callable[[], object], timeout_s: float, what: str) -> None:
    """Return as soon as the predicate is true; fail with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if predicate():
            return
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        time.sleep(max(POLL_S, min(REST_S, now - began)))


async def until(predicate: Callable[[], object], timeout_s: float, what: str) -> None:
    """Like `wait_until`, in an event loop."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        await asyncio.sleep(POLL_S)
