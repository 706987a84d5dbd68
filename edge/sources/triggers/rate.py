"""Fires at a fixed rate: free running, at most so many frames a second, without drift."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.settings import read_settings
from edge.sources.triggers.interface import Fire
from edge.sources.triggers.settings import RateSettings

if TYPE_CHECKING:
    from edge.clock import Clock

_JOIN_S = 2.0


class RateTrigger:
    """Fires once a period; periods that were slept through are not made up for."""

    kind = "rate"
    parts = False
    problem: str | None = None

    def __init__(self, settings: RateSettings, clock: "Clock") -> None:
        self._period_s, self._clock = 1 / settings.rate_hz, clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, fire: Fire) -> None:
        self._thread = threading.Thread(target=self._run, args=(fire,), name="trigger-rate", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, fire: Fire) -> None:
        due_s = self._clock.monotonic_s()
        while not self._stop.wait(max(0.0, due_s - self._clock.monotonic_s())):
            fire("")
            due_s = max(due_s + self._period_s, self._clock.monotonic_s())


def open_trigger(settings: Mapping[str, Any], *, clock: "Clock") -> RateTrigger:
    """Make the trigger; its settings are `RateSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    return RateTrigger(read_settings(RateSettings, settings, where="trigger rate"), clock)
