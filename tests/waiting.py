"""Waits for something to become true, with a deadline instead of a guess.

Rules:
- Who waits takes no more than a quarter of a core from what is waited for, however dear the look is.
"""

import asyncio
import time
from collections.abc import Callable

POLL_S = 0.01
REST = 3.0
"""After a look that took long comes a rest of so many times its length."""


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
        time.sleep(max(POLL_S, REST * (now - began)))


async def until(predicate: Callable[[], object], timeout_s: float, what: str) -> None:
    """Like `wait_until`, in an event loop."""
    deadline = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        await asyncio.sleep(POLL_S)
