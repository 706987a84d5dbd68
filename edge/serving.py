"""Which engine a station decides with now: swaps between windows, probation, and the way back.

Rules:
- An engine that is on trial keeps its forerunner warm beside it, so that going back takes no time and no network.
- A crash, a hang, an answer that is not a number, or too much memory ends a trial at the first time.
- A bundle in service that fails is opened again with back-off; after some failures in a row the one before it
  decides, if there is one; else windows are deferred and opening is tried for ever.
- Every change is told (an event), with its reason.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from edge import slots
from edge.bundle import Bundle, load
from edge.clock import Clock
from edge.engines import Engine
from edge.errors import LinesideError
from edge.slotfile import SlotFile
from edge.slots import Slot
from edge.wire.base import BundleRef

REOPENED_LOOK_S = 60.0
"""A bundle that was opened anew for its memory is left alone so long: one that always needs more still decides."""
LOOK_AT_MEMORY_S = 2.0
"""A leak is found within ten seconds of passing its limit, however few windows there are."""
MAX_FAILURES_IN_A_ROW = 3
"""Failures of a bundle in service before the one before it takes over."""
REOPEN_WAIT_MAX_S = 30.0
"""Longest pause between two tries to open an engine; a broken one must not eat the processor."""


class Tell(Protocol):
    """Records an event."""

    def __call__(self, name: str, severity: str, detail: str, data: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class ProbationRules:
    """What a trial must survive."""

    windows: int
    seconds: float
    max_deadline_misses: int
    max_memory_bytes: int


@dataclass
class Probation:
    """How far a trial has come."""

    since_s: float
    windows: int = 0
    deadline_misses: int = 0

    def over(self, rules: ProbationRules, now_s: float) -> bool:
        return self.windows >= rules.windows and now_s - self.since_s >= rules.seconds

    def breach(self, rules: ProbationRules, memory_bytes: int) -> str | None:
        """Return what ends the trial, or None."""
        if self.deadline_misses > rules.max_deadline_misses:
            return f"missed its deadline {self.deadline_misses} times in {self.windows} windows"
        if memory_bytes > rules.max_memory_bytes:
            return _too_large(memory_bytes, rules)
        return None


class Serving:
    """The engine of one station. `current`, `window_served` and `window_failed` belong to the pipeline's thread."""

    def __init__(
        self,
        slot_file: SlotFile,
        open_bundle: Callable[[Bundle], Engine],
        rules: ProbationRules,
        clock: Clock,
        tell: Tell,
    ) -> None:
        self._slots = slot_file
        self._open = open_bundle
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self._engine: Engine | None = None
        self._last: tuple[BundleRef, str] | None = None
        """What decided when it was closed, and on which runtime."""
        self._fallback: Engine | None = None
        self._probation: Probation | None = None
        self._failures = 0
        self._counted: str | None = None
        """Digest of the bundle whose failures are counted: opening it again does not forgive it."""
        self._next_try_s = self._next_look_s = 0.0
        self._offer_lock = threading.Lock()
        self._offered: Engine | None = None
        self.problem: str | None = "no bundle yet"

    @property
    def serving(self) -> BundleRef | None:
        """The bundle that decides now, or did when this was closed; for reports."""
        engine = self._engine
        return engine.ref if engine is not None else self._last[0] if self._last is not None else None

    @property
    def words(self) -> list[str] | None:
        """Labels that a person may name of a sound, none of a recogniser's text; None of a bundle that inspects."""
        engine = self._engine
        if engine is None or engine.manifest.task != "keyword":
            return None
        return [] if engine.spec.text is not None else list(engine.manifest.labels)

    @property
    def runtime(self) -> str | None:
        engine = self._engine
        return engine.session.description if engine is not None else self._last[1] if self._last is not None else None

    @property
    def memory_bytes(self) -> int:
        return self._engine.session.memory_bytes() if self._engine else 0

    def offer(self, engine: Engine) -> None:
        """Hand over a proved engine; it decides from the next window on. From any thread."""
        with self._offer_lock:
            stale, self._offered = self._offered, engine
        if stale is not None:
            stale.session.close()

    def current(self) -> Engine | None:
        """Return the engine for the next window, after any swap, return or reopening that is due."""
        with self._offer_lock:
            offered, self._offered = self._offered, None
        if offered is not None:
            self._swap(offered)
        wanted = self._slots.book.serving
        if wanted is None:
            return None
        if self._engine is None or self._engine.ref.digest != wanted.ref.digest:
            self._settle(wanted)
        return self._engine

    def window_served(self, *, deadline_missed: bool) -> None:
        """Count a window that the engine has judged, and end its probation when it is over."""
        self._failures = 0
        if self._engine is None:
            return
        memory_bytes = self._memory_now_and_then(self._engine)
        if self._probation is not None and self._slots.book.state(self._engine.ref.digest) != "trial":
            self._probation = None  # another station with this model has ended it
        if self._probation is None:
            if memory_bytes > self._rules.max_memory_bytes:
                self._open_anew(self._engine.ref, _too_large(memory_bytes, self._rules))
            return
        self._probation.windows += 1
        self._probation.deadline_misses += deadline_missed
        if reason := self._probation.breach(self._rules, memory_bytes):
            self._give_up(self._engine.ref, reason)
        elif self._probation.over(self._rules, self._clock.monotonic_s()):
            self._promote(self._engine)

    def window_failed(self, reason: str) -> None:
        """Count a window in which the engine failed, and go back or open it again."""
        self._failures += 1
        if self._engine is None:
            return
        ref = self._engine.ref
        if self._probation is not None or self._failures >= MAX_FAILURES_IN_A_ROW:
            self._give_up(ref, reason)
        if self._slots.book.state(ref.digest) != "bad":
            self._close_engine()
            self.problem = reason
            self._next_try_s = self._clock.monotonic_s() + self._wait_s()

    def close(self) -> None:
        """Close every engine. Safe to call twice."""
        if self._engine is not None:
            self._last = self._engine.ref, self._engine.session.description
        for engine in (self._engine, self._fallback, self._offered):
            if engine is not None:
                engine.session.close()
        self._engine = self._fallback = self._offered = None

    def _swap(self, engine: Engine) -> None:
        wanted = self._slots.book.serving
        if wanted is None or wanted.ref.digest != engine.ref.digest:
            engine.session.close()
            return
        before = self._engine
        on_trial = self._slots.book.state(engine.ref.digest) == "trial"
        keep = on_trial and before is not None and self._slots.book.current == before.ref.digest
        if keep and before is not None:
            self._close_fallback()
            self._fallback = before
        elif before is not None:
            before.session.close()
        self._take(engine)
        self._tell(
            "bundle_swapped",
            "info",
            f"{_words(engine.ref)} decides now"
            + (" on trial" if on_trial else "")
            + (f"; {engine.note}" if engine.note else ""),
            {"bundle": engine.ref.model_dump(), "before": before.ref.model_dump() if before else None},
        )

    def _take(self, engine: Engine) -> None:
        self._engine, self._last = engine, None
        if engine.ref.digest != self._counted:
            self._failures, self._counted = 0, engine.ref.digest
        self.problem = None
        on_trial = self._slots.book.state(engine.ref.digest) == "trial"
        self._probation = Probation(self._clock.monotonic_s()) if on_trial else None
        if on_trial:
            self._next_look_s = 0.0

    def _settle(self, wanted: Slot) -> None:
        """Get an engine for the bundle that the book names: the warm one, or opened from disk."""
        if self._fallback is not None and self._fallback.ref.digest == wanted.ref.digest:
            engine, self._fallback = self._fallback, None
            self._close_engine()
            self._take(engine)
            self._tell("bundle_returned", "warning", f"{_words(engine.ref)} decides again", _data(engine.ref))
            return
        if self._clock.monotonic_s() < self._next_try_s:
            return
        self._close_engine()
        try:
            engine = self._open(load(self._slots.bundle_path(wanted.ref), expected_digest=wanted.ref.digest))
        except LinesideError as error:
            self._opening_failed(wanted, error)
            return
        self._take(engine)
        detail = f"{_words(engine.ref)} opened" + (f"; {engine.note}" if engine.note else "")
        self._tell("bundle_opened", "warning" if engine.note else "info", detail, _data(engine.ref))

    def _opening_failed(self, wanted: Slot, error: LinesideError) -> None:
        self._failures += 1
        self._last = None
        self.problem = f"{_words(wanted.ref)} cannot be opened: {error}"
        self._next_try_s = self._clock.monotonic_s() + self._wait_s()
        if wanted.state == "trial" or self._failures >= MAX_FAILURES_IN_A_ROW:
            self._give_up(wanted.ref, str(error))
        else:
            self._tell("bundle_not_opened", "alarm", self.problem, _data(wanted.ref))

    def _promote(self, engine: Engine) -> None:
        self._slots.change(slots.served)
        self._probation = None
        self._close_fallback()
        self._tell("bundle_promoted", "info", f"{_words(engine.ref)} has lasted its probation", _data(engine.ref))

    def _give_up(self, ref: BundleRef, reason: str) -> None:
        before = self._slots.book
        after = self._slots.change(lambda book, now: slots.breached(book, ref, reason, now))
        self._probation = None
        if after == before:
            self._tell("bundle_failed", "alarm", f"{_words(ref)}: {reason}; no other good bundle here", _data(ref))
            return
        self._failures = 0
        self._next_try_s = 0.0
        back = after.serving
        detail = f"{_words(ref)}: {reason}; back to {_words(back.ref) if back else 'none'}"
        self._tell("bundle_failed", "alarm", detail, _data(ref))

    def _open_anew(self, ref: BundleRef, reason: str) -> None:
        """End a child that has grown in service: a new one gives its memory back."""
        self._close_engine()
        self._next_look_s = self._clock.monotonic_s() + REOPENED_LOOK_S
        self._tell("bundle_failed", "alarm", f"{_words(ref)}: {reason}; opened anew", _data(ref))

    def _memory_now_and_then(self, engine: Engine) -> int:
        """Memory of the engine's child, looked at every two seconds: reading it costs a system call or two."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return 0
        self._next_look_s = now_s + LOOK_AT_MEMORY_S
        return engine.session.memory_bytes()

    def _wait_s(self) -> float:
        return 0.0 if self._failures <= 1 else float(min(REOPEN_WAIT_MAX_S, 0.25 * 2.0 ** min(self._failures - 1, 10)))

    def _close_engine(self) -> None:
        if self._engine is not None:
            self._engine.session.close()
            self._engine = None

    def _close_fallback(self) -> None:
        if self._fallback is not None:
            self._fallback.session.close()
            self._fallback = None


def _too_large(memory_bytes: int, rules: ProbationRules) -> str:
    return f"used {memory_bytes} bytes of memory, more than {rules.max_memory_bytes}"


def _words(ref: BundleRef) -> str:
    return f"{ref.name} {ref.version}"


def _data(ref: BundleRef) -> dict[str, Any]:
    return {"bundle": ref.model_dump()}
