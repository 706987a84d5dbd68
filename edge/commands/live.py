"""What `lineside-edge run` shows of a station that listens: level, speech, what was understood, where, in how many ms.

Rules:
- In a terminal results scroll by above a line a station that moves; elsewhere each result is one plain line.
- It looks on: results come from the record, the level from two values that the source leaves lying. The stations never
  wait for it, and an output that nobody reads any more ends it, not the daemon.
"""

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edge.clock import Clock
from edge.commands.watch import MEASURED, STYLES, quantile
from edge.config import Config
from edge.errors import StoreError
from edge.results import Result, of_answer, of_decision
from edge.sources.interface import Listening
from edge.station import store_path
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow

REFRESH_S, LOOK_S = 0.15, 0.1
"""How often the picture moves in a terminal, and how often the record is looked at elsewhere."""
FLOOR_DBFS, METER = 60.0, 24
"""The level's bar begins so far below full scale, and has so many cells."""
KNOWN = 256
"""Decisions that an answer may still come to: many more than wait for a server."""
ROWS = 500

Hear = Callable[[], dict[str, Listening]]


@contextmanager
def showing(config: Config, clock: Clock) -> Iterator["LiveView"]:
    """Show what `LiveView.begin` is given, until the block ends; in a terminal also what is logged to it."""
    console = Console()
    view = LiveView(config, clock, console)
    if not console.is_terminal:
        with view:
            yield view
        return
    with Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty()) as live:
        view.screen = live
        with view:
            yield view


class LiveView:
    """Looks on in a thread of its own."""

    def __init__(self, config: Config, clock: Clock, console: Console) -> None:
        self._config, self._clock, self._console = config, clock, console
        self.screen: Live | None = None
        """The terminal, if there is one."""
        self._hear: Hear = dict
        self._known: dict[int, DecisionRow] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._times: dict[str, deque[float]] = {}
        self._store: Store | None = None
        self._seen: int | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-view", daemon=True)

    def begin(self, hear: Hear) -> None:
        """Begin with what is in the record from now on; `hear` gives what the stations hear."""
        self._hear = hear
        path = store_path(self._config)
        # If it cannot be read now, it begins with the first look that can.
        with suppress(StoreError), Store.open_read_only(path, clock=self._clock) as store:
            self._seen = store.last_seq()
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Show what came last, and end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        with suppress(OSError):  # nobody reads it any more
            while not self._stop.wait(REFRESH_S if self.screen else LOOK_S):
                self._look()
            self._look()
        self._close()

    def _look(self) -> None:
        try:
            for result in self._results(self._open()):
                self._show(result)
        except StoreError:
            self._close()  # damaged or away for a moment: the next look opens it again
        if self.screen is not None:
            self.screen.update(self._picture(), refresh=True)

    def _open(self) -> Store:
        if self._store is None:
            self._store = Store.open_read_only(store_path(self._config), clock=self._clock)
        return self._store

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _results(self, store: Store) -> Iterator[Result]:
        if self._seen is None:
            self._seen = store.last_seq()
        for row in store.rows(self._seen, limit=ROWS):
            self._seen = row.seq
            if isinstance(row, DecisionRow):
                self._known[row.seq] = row
                if len(self._known) > KNOWN:
                    del self._known[next(iter(self._known))]
                yield of_decision(row)
            elif isinstance(row, EventRow):
                answered = of_answer(row, self._known.get(row.data.get("decision_seq", 0)))
                if answered is not None:
                    yield answered

    def _show(self, result: Result) -> None:
        self._counts[result.station, result.verdict if result.where == "device" else "server"] += 1
        self._times.setdefault(result.station, deque(maxlen=MEASURED)).append(result.latency_ms)
        words = result.words()
        if self.screen is None:
            print(words, file=self._console.file, flush=True)
        else:
            self._console.print(Text(words, style=STYLES.get(result.verdict, "")))

    def _picture(self) -> RenderableType:
        """Return the lines that move: one a station."""
        table = Table(box=None, pad_edge=False, show_header=False)
        now = self._hear()
        for name in self._config.station:
            heard, times = now.get(name), sorted(self._times.get(name, ()))
            level = heard.level_dbfs if heard else -FLOOR_DBFS
            counts = [f"{what} {n}" for (station, what), n in sorted(self._counts.items()) if station == name]
            table.add_row(
                Text(name, style="bold"),
                ProgressBar(total=FLOOR_DBFS, completed=max(0.0, FLOOR_DBFS + level), width=METER),
                f"{level:4.0f} dBFS" if heard else "",
                _state(heard),
                " ".join(counts),
                f"p50 {quantile(times, 0.5)} p95 {quantile(times, 0.95)}" if times else "",
            )
        return table


def _state(heard: Listening | None) -> Text:
    if heard is None:
        return Text("no sound", style="dim")
    return Text("speech   ", style="bold green") if heard.active else Text("no speech", style="dim")
