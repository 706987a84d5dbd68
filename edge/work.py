"""The work on one window: its parts, its times and its way out, shared by the pipeline's steps.

Rules:
- A piece of work belongs to one window and one thread; the engine and settings in it never change on the way.
"""

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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
    extras: NDArray[np.float32] | None = None
    """Features, heat map or text one after another, if the network gives any."""
    text: str | None = None
    """What a recogniser understood."""
    steps_ms: dict[str, float] = field(default_factory=dict)
    started_s: float = field(default_factory=time.perf_counter)
    judged: bool = False
    """Whether the network's answer became a judgement."""
    late: bool = False
    """Whether that came after the deadline."""
    tensor: NDArray[np.generic] | None = None
    """What the network was asked."""
    engine_failure: str | None = None
    """What the engine did wrong, if it did."""

    @property
    def loaded(self) -> Engine:
        """The engine, which the gate has made sure of."""
        if self.engine is None:
            raise RuntimeError("no engine: the gate comes first")
        return self.engine

    def step(self, name: str) -> "Step":
        """Time what is done inside `with` as one step."""
        return Step(self.steps_ms, name)

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds since the window was read, decoding and what a live one waited before included."""
        window = self.window
        return (time.perf_counter() - self.started_s) * 1000 + window.decode_ms + window.waited_ms


class Step:
    """Times one step, also one that fails. A class, not a generator: it is entered five times a window."""

    __slots__ = ("_name", "_started_s", "_steps_ms")

    def __init__(self, steps_ms: dict[str, float], name: str) -> None:
        self._steps_ms, self._name = steps_ms, name

    def __enter__(self) -> None:
        self._started_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._steps_ms[self._name] = (time.perf_counter() - self._started_s) * 1000


class DeferBudget:
    """How many parts a station may hand to people in any hour. Remembers no more than an hour of a budget holds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent_s: deque[float] = deque()

    def left(self, per_hour: int | None) -> bool:
        """Return whether one more may be handed over; without a budget (None) always."""
        if per_hour is None:
            self._spent_s.clear()
            return True
        horizon = self._clock.monotonic_s() - _HOUR_S
        while self._spent_s and self._spent_s[0] < horizon:
            self._spent_s.popleft()
        return len(self._spent_s) < per_hour

    def spend(self) -> None:
        """Count one part handed over."""
        self._spent_s.append(self._clock.monotonic_s())
