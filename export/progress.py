"""Shows how far a long command is, and how long it will still take.

Rules:
- On a terminal a bar for the stage and one for the whole; elsewhere a line every ten seconds. Standard error only.
- The time left of the whole comes from what has passed and from the weights that the stages were given.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_EVERY_S = 10.0


class Step(Protocol):
    """Says how far a stage is."""

    def __call__(self, done: int, total: int) -> None:
        """Tell that `done` of `total` pieces are done."""


class Stages:
    """The stages of one command, each with its weight (about its seconds)."""

    def __init__(self, weights: dict[str, float], *, quiet: bool = False) -> None:
        self._weights = weights
        self._past = 0.0
        self._began_s = time.monotonic()
        self._said_s = 0.0
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
            elif not self._quiet and time.monotonic() - self._said_s > _LINE_EVERY_S:
                self._said_s = time.monotonic()
                print(f"{name}: {share:.0%}, {left}", file=sys.stderr, flush=True)

        yield step
        step(1, 1)
        self._past += self._weights[name]

    def _left(self, done: float) -> str:
        share = done / max(sum(self._weights.values()), 1e-9)
        elapsed = time.monotonic() - self._began_s
        if share <= 0.01:
            return ""
        left = elapsed * (1 - share) / share
        return f"{left / 60:.0f} min left" if left > 90 else f"{left:.0f} s left"
