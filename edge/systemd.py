"""Tells systemd how the daemon does: ready, alive, stopping (sd_notify(3)), and nothing where there is no systemd.

Rules:
- The watchdog is fed only while every station really turns: a hung pipeline is a hung daemon.
- A message that systemd does not take changes nothing: deciding comes first.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from edge.clock import Clock

STUCK_S = 10.0
"""A station looks for a window four times a second, and its slowest network answers within the deadline."""
FEEDS_PER_TIMEOUT = 3
"""Twice may a feed come late before systemd acts."""


class Notifier:
    """The way to systemd, as the environment gives it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # An address with @ lies in Linux' abstract namespace, which the kernel writes with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        timeout_us = environment.get("WATCHDOG_USEC", "") if ours else ""
        self.watchdog_s = int(timeout_us) / 1e6 if timeout_us.isdigit() else None
        """Seconds without a feed after which systemd ends the daemon; None for no watchdog."""

    def say(self, message: str) -> bool:
        """Send a message such as `READY=1`; return whether it left."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.setblocking(False)  # whoever does not read must not hold up all tasks of the daemon
                way.connect(self._address)
                way.send(message.encode())
        except OSError:
            return False
        return True

    def allow_silence(self, seconds: float) -> None:
        """Have systemd wait for so long after a feed that came late twice, if its own limit is shorter."""
        needed_s = seconds * FEEDS_PER_TIMEOUT / (FEEDS_PER_TIMEOUT - 1)
        if self.watchdog_s is not None and self.watchdog_s < needed_s:
            self.watchdog_s = needed_s
            self.say(f"WATCHDOG_USEC={round(needed_s * 1e6)}")


class TurnWatch:
    """Says which stations stand still; asked from time to time, by whoever wants to know."""

    def __init__(self, turns: Callable[[], dict[str, int | None]], clock: Clock) -> None:
        self._turns = turns
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}

    def stuck(self) -> list[str]:
        """Return the stations that have not turned for `STUCK_S`, as far as this watch has seen."""
        now_s, found = self._clock.monotonic_s(), []
        for name, count in self._turns().items():
            known = self._seen.get(name)
            if count is None or known is None or known[0] != count:
                self._seen[name] = (-1 if count is None else count, now_s)
            elif now_s - known[1] >= STUCK_S:
                found.append(name)
        return found


async def feed(notifier: Notifier, turns: Callable[[], dict[str, int | None]]) -> None:
    """Feed the watchdog for ever, as long as every station has turned since the last time.

    Args:
        notifier: the way to systemd; without a watchdog this returns at once.
        turns: how often each station has turned; None for one that has nothing more to do.
    """
    if notifier.watchdog_s is None:
        return
    last: dict[str, int | None] = {}
    while True:
        now = turns()
        stuck = [name for name, count in now.items() if count is not None and count == last.get(name)]
        notifier.say(f"STATUS=stuck: {', '.join(stuck)}" if stuck else "WATCHDOG=1\nSTATUS=deciding")
        last = now
        await asyncio.sleep(notifier.watchdog_s / FEEDS_PER_TIMEOUT)
