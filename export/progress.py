"""Shows how far a long command is, and how long it will still take.

Rules:
- On a terminal a bar for the stage and one for the whole; elsewhere a line every ten seconds. Standard error only.
- The time left of the whole comes from the pace so far and from the weights that the stages were given; what an
  earlier run had done already says nothing about the pace.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_EVERY_S = 10.0
_FOUND_DONE = 0.05
"""What took less than this share of its weight was not done but found done."""
_PRIOR_S = 5.0
"""The weights are about seconds: they are believed as if this much had been done at their pace."""


class Step(Protocol):
    """Says how far a stage is."""

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` pieces are done."""


class Pace:
    """Estimates the time left from pieces of work and the seconds that each took. Pure."""

    def __init__(self, total: float) -> None:
        self._total = total
        self._reached = 0.0
        self._worked, self._took_s = _PRIOR_S, _PRIOR_S

    def reach(self, done: float, seconds: float) -> None:
        """Note that `done` of the total is done, `seconds` after what was reached before."""
        piece = done - self._reached
        self._reached = done
        if piece > 0 and seconds >= _FOUND_DONE * piece:
            self._worked += piece
            self._took_s += seconds

    def left_s(self) -> float:
        """Return about how many seconds the rest takes."""
        return max(self._total - self._reached, 0.0) * self._took_s / self._worked


class Stages:
    """The stages of one command, each with its weight (about its seconds)."""

    def __init__(
        self, weights: dict[str, float], *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._weights = weights
        self._past = 0.0
        self._pace = Pace(sum(weights.values()))
        self._clock = clock
        self._reached_s = clock()
        self._said_s = clock() - _LINE_EVERY_S
        self._quiet = quiet
        console = Console(stderr=True)
        columns = (TextColumn("{task.description:<34}"), BarColumn(30), TextColumn("{task.fields[left]:>14}"))
        self._bars = (
            Progress(*columns, TimeElapsedColumn(), console=console) if console.is_terminal and not quiet else None
        )

    def __enter__(self) -> "Stages":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def stage(self, name: str) -> Iterator[Step]:
        """Show one stage while it runs; its name must be one of the weights."""
        bar = None if self._bars is None else self._bars.add_task(name, total=1.0, left="")
        if bar is None and not self._quiet:
            print(f"{name} …", file=sys.stderr, flush=True)

        def step(done: int, total: int) -> None:
            share = done / max(total, 1)
            left = self._left(self._past + share * self._weights[name])
            if self._bars is not None and bar is not None:
                self._bars.update(bar, completed=share, left=left)
            elif not self._quiet and self._clock() - self._said_s >= _LINE_EVERY_S:
                self._said_s = self._clock()
                print(f"{name}: {share:.0%}, {left}", file=sys.stderr, flush=True)

        yield step
        step(1, 1)
        self._past += self._weights[name]

    def _left(self, done: float) -> str:
        now_s = self._clock()
        self._pace.reach(done, now_s - self._reached_s)
        self._reached_s = now_s
        left = self._pace.left_s()
        return f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left"
