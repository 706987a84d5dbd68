"""The work on one window: its parts, its times and its way out, shared by the pipeline's steps.

Rules:
- A piece of work belongs to one window and one thread; the engine and settings in it never change on the way.
"""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edge.clock import Clock
from edge.engines import Engine
from edge.values import StationSettings, Window
from edge.wire.terms import DeferReason

_HOUR_S = 3600.0


class Unjudged(Exception):  # noqa: N818 - it is a way out, not an error
    """A window that ends in a deferral, with the reason; the message is for people."""

    def __init__(self, reason: DeferReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass
class Work:
    """One window on its way through the pipeline."""

    window: Window
    settings: StationSettings
    engine: Engine | None
    metrics: dict[str, float] = field(default_factory=dict)
    steps_ms: dict[str, float] = field(default_factory=dict)
    started_s: float = field(default_factory=time.perf_counter)
    judged: bool = False
    """Whether the network's answer became a judgement."""
    late: bool = False
    """Whether that came after the deadline."""
    engine_failure: str | None = None
    """What the engine did wrong, if it did."""

    @property
    def loaded(self) -> Engine:
        """The engine, which the gate has made sure of."""
        if self.engine is None:
            raise RuntimeError("no engine: the gate comes first")
        return self.engine

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.steps_ms[name] = (time.perf_counter() - started) * 1000

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the window was read, decoding included."""
        return (time.perf_counter() - self.started_s) * 1000 + self.window.decode_ms


class DeferBudget:
    """How many parts a station may hand to people in any hour."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent_s: deque[float] = deque()

    def left(self, per_hour: int | None) -> bool:
        """Return whether one more may be handed over."""
        if per_hour is None:
            return True
        horizon = self._clock.monotonic_s() - _HOUR_S
        while self._spent_s and self._spent_s[0] < horizon:
            self._spent_s.popleft()
        return len(self._spent_s) < per_hour

    def spend(self) -> None:
        """Count one part handed over."""
        self._spent_s.append(self._clock.monotonic_s())
