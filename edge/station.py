"""One station: its pipeline in a thread of its own, put together from the configuration and kept running.

Rules:
- The thread owns its store connection, source, actuator and engines; others only offer engines and read state.
- An error that nobody foresaw ends in an event and a new pipeline after a pause, never in a dead thread.
"""

import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge.actuators import open_actuator
from edge.actuators.interface import Actuator, Place
from edge.actuators.reopening import open_or_later
from edge.bundle import Bundle
from edge.clock import Clock
from edge.config import Config, StationSection
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import LinesideError, StoreError
from edge.linewatch import LineWatch
from edge.observe import Observer, Totals
from edge.pipeline import Parts, Pipeline
from edge.report import StationView
from edge.serving import ProbationRules, Serving
from edge.shadow import Shadow, open_staged
from edge.slotfile import SlotFile
from edge.sources import open_source
from edge.sources.interface import Listening, News, Source
from edge.sources.reopening import ReopeningSource
from edge.store import Store
from edge.values import StationSettings, Window
from edge.wear import WriteBudget
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.asking import Asking

LOWEST_PRIORITY = 19
SHADOW_DEADLINE_S = 10.0
"""A candidate at the lowest priority may be slow; one that hangs is found out all the same."""
RESTART_WAIT_S = 1.0
"""Pause before a pipeline that failed in a way nobody foresaw is put together again."""


@dataclass(frozen=True)
class Shared:
    """What the stations of one daemon have in common."""

    config: Config
    clock: Clock
    boot_id: str
    open_store: Callable[[], Store]
    settings: Callable[[str], StationSettings]
    budget: WriteBudget


class Station:
    """A station of the daemon."""

    def __init__(self, name: str, config: StationSection, slot_file: SlotFile, shared: Shared) -> None:
        self.name = name
        self._config = config
        self._shared = shared
        self._store: Store | None = None
        self._stop, self._hurry = threading.Event(), threading.Event()
        self._pipeline: Pipeline | None = None
        self._source: ReopeningSource | None = None
        self._trouble: str | None = None
        self._turns_before = 0
        self._observer: Observer | None = None
        self.serving = Serving(slot_file, self.open_bundle, _rules(shared.config), shared.clock, self._tell)
        self._shadow = self._make_shadow(slot_file) if config.shadow_cpu_share else None
        self._asking = self._make_asking()
        self._thread = threading.Thread(target=self._run, name=f"station-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if self._shadow is not None:
            self._shadow.start()
        if self._asking is not None:
            self._asking.start()

    def stop(self) -> None:
        """Ask the thread to end after the window it is on, or after what somebody waits for (`device.drain_s`)."""
        self._stop.set()
        if self._shadow is not None:
            self._shadow.stop(0.0)

    def hurry(self) -> None:
        """Ask it to end after the window it is on, whoever waits."""
        self._hurry.set()
        self._stop.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for all its threads together; return whether the one that decides has ended."""
        until_s = self._shared.clock.monotonic_s() + timeout_s

        def left_s() -> float:
            return max(0.0, until_s - self._shared.clock.monotonic_s())

        self._thread.join(left_s())
        if self._shadow is not None:
            self._shadow.stop(left_s())
        if self._asking is not None:
            self._asking.stop(left_s())
        return not self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """Whether its pipeline is done, for whatever reason."""
        return not self._thread.is_alive()

    @property
    def finished(self) -> bool:
        """Whether it is exhausted and whoever was to be asked was asked."""
        return self.exhausted and (self._asking is None or self._asking.idle)

    @property
    def listening(self) -> Listening | None:
        """What the source hears now, None if it does not hear."""
        return self._source.listening if self._source else None

    @property
    def exhausted(self) -> bool:
        """Whether the source has nothing more and everything it gave is decided."""
        return not self._thread.is_alive() and not self._stop.is_set() and self._thread.ident is not None

    @property
    def turns(self) -> int | None:
        """How often the pipeline has looked for a window, over all pipelines so far; None once it has ended."""
        if self._thread.ident is not None and self.ended:
            return None
        return self._turns_before + (self._pipeline.turns if self._pipeline else 0)

    @property
    def last(self) -> tuple[Window, DecisionRow | None] | None:
        """The last window with its decision."""
        return self._pipeline.last if self._pipeline else None

    def totals(self) -> Totals:
        """Return what was counted since the daemon started."""
        return self._observer.totals() if self._observer else Totals({}, {})

    def view(self) -> StationView:
        """Return the station as a report sees it."""
        problem = self._trouble or (self._source.problem if self._source else None)
        problem = problem or (self._pipeline.problem if self._pipeline else None)
        problem = problem or (self._asking.problem if self._asking else None)
        return StationView(
            model=self._config.model,
            settings=self._shared.settings(self.name),
            serving=self.serving,
            pipeline=self._pipeline,
            source_problem=problem,
        )

    def open_bundle(
        self, bundle: Bundle, *, within_s: float | None = None, again: NDArray[np.generic] | None = None
    ) -> Engine:
        """Open a bundle the way this station runs its networks, see `open_engine`. From any thread."""
        settings = EngineSettings(
            runtime=self._config.runtime,
            isolation=self._config.isolation,
            threads=self._config.threads,
            deadline_s=self._config.deadline_ms / 1000,
            load_s=self._config.load_s,
        )
        return open_engine(bundle, settings, within_s=within_s, again=again)

    def _make_shadow(self, slot_file: SlotFile) -> Shadow:
        config, shared = self._config, self._shared
        settings = EngineSettings(
            runtime=config.runtime,
            deadline_s=SHADOW_DEADLINE_S,
            isolation="process",
            load_s=config.load_s,
            nice=LOWEST_PRIORITY,
        )
        return Shadow(
            self.name,
            slot_file,
            lambda slot, book: open_staged(slot, book, lambda bundle: open_engine(bundle, settings)),
            shared.open_store,
            lambda: shared.settings(self.name),
            shared.clock,
            shared.boot_id,
            cpu_share=config.shadow_cpu_share,
            tell_every_s=shared.config.link.telemetry_window_s,
        )

    def _make_asking(self) -> "Asking | None":
        ask, shared = self._config.ask, self._shared
        if ask is None:
            return None
        from edge.asking import Asking

        settings = lambda: shared.settings(self.name)  # noqa: E731
        return Asking(self.name, self._config.model, ask, shared.open_store, settings, shared.clock, shared.boot_id)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._decide_until_done()
                return
            except Exception as error:  # noqa: BLE001 - a station never dies in silence
                self._trouble = f"{type(error).__name__}: {error}"
                self._tell_trouble(traceback.format_exc())
                # A station that is put together again and again is in trouble, not stuck.
                self._turns_before += 1 + (self._pipeline.turns if self._pipeline else 0)
                self._pipeline = None
                self._stop.wait(RESTART_WAIT_S)

    def _decide_until_done(self) -> None:
        store = self._shared.open_store()
        source = actuator = None
        try:
            self._store = store
            source = self._open_source(store)
            actuator = self._open_actuator()
            self._source = source
            self._pipeline = Pipeline(self._parts(store, source, actuator))
            self._trouble = None
            self._pipeline.run(self._stop)
            if source.drain():
                self._run_out(source, self._pipeline)
            self._pipeline.finish()
        finally:
            self.serving.close()
            for part in (source, actuator):
                if part is not None:
                    part.close()
            self._store = None
            store.close()

    def _run_out(self, source: ReopeningSource, pipeline: Pipeline) -> None:
        """Decide on what was taken in before the stop, and say what was not decided any more."""
        limit_s = self._shared.config.device.drain_s
        pipeline.run_out(limit_s, self._hurry)
        left = source.waiting
        if left:
            why = "it was told twice to end" if self._hurry.is_set() else f"there was no time within {limit_s:g} s"
            detail = f"{left} inputs that were taken in before the stop were not decided: {why}"
            self._tell("inputs_not_decided", "warning", detail, {"count": left})

    def _parts(self, store: Store, source: ReopeningSource, actuator: Actuator) -> Parts:
        shared = self._shared
        self._observer = Observer(
            self.name,
            self._config.model,
            store,
            shared.clock,
            shared.boot_id,
            shared.config.link.telemetry_window_s,
            lambda: shared.budget.telemetry_stretch,
        )
        return Parts(
            source=source,
            serving=self.serving,
            actuator=actuator,
            store=store,
            observer=self._observer,
            settings=lambda: shared.settings(self.name),
            clock=shared.clock,
            boot_id=shared.boot_id,
            line=self._line(store, actuator),
            shadow=self._shadow,
            asking=self._asking,
            heard=source.heard,
        )

    def _line(self, store: Store, actuator: Actuator) -> LineWatch | None:
        rules = self._config.rules
        if not rules.any:
            return None
        return LineWatch(rules, self.name, store, actuator, self._shared.clock, self._shared.boot_id)

    def _open_source(self, store: Store) -> ReopeningSource:
        settings = dict(self._config.source)
        kind = str(settings.pop("kind", ""))

        def open_inner() -> Source:
            seen, clock = (lambda key: store.seen(self.name, key)), self._shared.clock
            return self._with_masks(open_source(kind, settings, seen=seen, clock=clock))

        return ReopeningSource(kind, open_inner, self._shared.clock, self._tell_source, self._tell_news)

    def _with_masks(self, source: Source) -> Source:
        if not self._config.mask and self._config.crop is None:
            return source
        from edge.sources.masked import MaskedSource

        return MaskedSource(source, self._config.mask, self._config.crop)

    def _open_actuator(self) -> Actuator:
        settings = dict(self._config.actuator)
        kind = str(settings.pop("kind", ""))
        shared = self._shared
        place = Place(shared.config.device.name, self.name, shared.boot_id, shared.open_store)
        return open_or_later(kind, lambda: open_actuator(kind, settings, clock=shared.clock, place=place), shared.clock)

    def _tell(self, name: str, severity: Any, detail: str, data: dict[str, Any]) -> None:
        if self._store is None:
            return
        try:
            self._store.append_event(
                name,
                boot_id=self._shared.boot_id,
                severity=severity,
                station=self.name,
                model=self._config.model,
                detail=detail,
                data=data,
            )
        except StoreError as error:
            # No room for the event: the report still carries the state that it tells of.
            self._trouble = str(error)

    def _tell_source(self, problem: str | None) -> None:
        if problem is None:
            self._tell("source_found", "info", "the source is back", {})
        else:
            self._tell("source_lost", "alarm", problem, {})

    def _tell_news(self, news: News) -> None:
        self._tell(news.name, news.severity, news.detail, news.data)

    def _tell_trouble(self, trace: str) -> None:
        try:
            with self._shared.open_store() as store:
                store.append_event(
                    "station_failed",
                    boot_id=self._shared.boot_id,
                    severity="alarm",
                    station=self.name,
                    detail=self._trouble or "",
                    data={"trace": trace[-4000:]},
                )
        except LinesideError as error:
            self._trouble = f"{self._trouble}; and not recorded: {error}"


def _rules(config: Config) -> ProbationRules:
    probation = config.probation
    return ProbationRules(
        windows=probation.windows,
        seconds=probation.seconds,
        max_deadline_misses=probation.max_deadline_misses,
        max_memory_bytes=probation.max_memory_bytes,
    )


def store_path(config: Config) -> Path:
    """Return where the device's store lies."""
    return config.device.data / "lineside.sqlite"
