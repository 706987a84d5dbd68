"""Which engine a station decides with now: swaps between windows, probation, and the way back.

Rules:
- An engine that is on trial keeps its forerunner warm beside it, so that going back takes no time and no network.
- A crash, a hang, an answer that is not a number, or too much memory ends a trial at the first time.
- A bundle in service that fails is opened again and proves itself anew at once: by its golden examples and by the input
  on which it failed. If it fails once more before it has judged anything, or too often of late (`failures`), the one
  before it decides, if there is one; else windows are deferred and opening is tried for ever, with back-off.
- That takes less than ten seconds from the first failure: proving has a limit (`PROVE_WITHIN_S`), and a bundle that is
  too slow to open to be proved within it goes back at its first failure.
- A bundle in service that outgrows its memory within an hour of being opened gives way to the one before it; one that
  took longer, or has none before it, is opened anew, which gives the memory of its child back.
- Memory is that of the child; without one (`inline`) it is what the daemon has grown by since the bundle decides.
- Going back never swings: what was left is bad for good, and what is returned to has nothing before it.
- Every change is told (an event), with its reason.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge import slots
from edge.bundle import Bundle, load
from edge.clock import Clock
from edge.engines import Engine
from edge.errors import LinesideError, StoreError
from edge.failures import RecentFailures
from edge.host import own_bytes
from edge.slotfile import SlotFile
from edge.slots import Slot
from edge.wire.base import BundleRef

REOPENED_LOOK_S = 60.0
"""A bundle that was opened anew for its memory is left alone so long: one that always needs more still decides."""
LOOK_AT_MEMORY_S = 2.0
"""A leak is found within ten seconds of passing its limit, however few windows there are; a look costs little."""
LEAK_WITHIN_S = 3600.0
"""A bundle in service that passes the limit so soon leaks at a rate that a new child does not mend."""
PROVE_WITHIN_S = 6.0
"""Opening a bundle and proving it, where there is one to go back to, which then still has to be opened."""
QUICK_TO_OPEN_S = 3.0
"""A bundle that took longer to open is not given a second try in service: it could not prove itself in time."""
LASTS_S = 60.0
"""A bundle that has decided for so long since it was opened does not kill the daemon at its start."""
ALONE_EVERY_S = 60.0
"""Alarms that a bundle fails and has none before it, at most one in so long."""
REOPEN_WAIT_MAX_S = 30.0
"""Longest pause between two tries to open an engine; a broken one must not eat the processor."""


class Tell(Protocol):
    """Records an event."""

    def __call__(self, name: str, severity: str, detail: str, data: dict[str, Any]) -> None: ...


class OpenBundle(Protocol):
    """Opens and proves a bundle, see `engines.open_engine`."""

    def __call__(
        self, bundle: Bundle, *, within_s: float | None = None, again: NDArray[np.generic] | None = None
    ) -> Engine: ...


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

    def breach(self, rules: ProbationRules) -> str | None:
        """Return what ends the trial, or None."""
        if self.deadline_misses > rules.max_deadline_misses:
            return f"missed its deadline {self.deadline_misses} times in {self.windows} windows"
        return None


class Serving:
    """The engine of one station. `current`, `window_served` and `window_failed` belong to the pipeline's thread."""

    def __init__(
        self,
        slot_file: SlotFile,
        open_bundle: OpenBundle,
        rules: ProbationRules,
        clock: Clock,
        tell: Tell,
        own_memory: Callable[[], int] = own_bytes,
    ) -> None:
        self._slots = slot_file
        self._open = open_bundle
        self._rules = rules
        self._clock = clock
        self._tell = tell
        self._own_memory = own_memory
        self._engine: Engine | None = None
        self._last: tuple[BundleRef, str] | None = None
        """What decided when it was closed, and on which runtime."""
        self._fallback: Engine | None = None
        self._probation: Probation | None = None
        self._failures = 0
        """In a row: how long to wait before it is opened again."""
        self._recent = RecentFailures()
        self._counted: str | None = None
        """Digest of the bundle whose failures are counted: opening it again does not forgive it."""
        self._failed_on: NDArray[np.generic] | None = None
        """The input on which it failed last, until it has answered it."""
        self._next_try_s = self._next_look_s = self._next_alarm_s = 0.0
        self._opened_s = 0.0
        self._lasts = False
        self._unlooked = False
        """Whether a window was served since its memory was looked at."""
        self._own_before = 0
        """What the daemon itself held when this engine began to decide."""
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
        """Return the engine for the next window, after any swap, return or reopening that is due.

        Asked for several times a second also while nothing comes: what the last window left behind is then found.
        """
        if self._engine is not None and self._unlooked:
            self._look_at_memory(self._engine)
        with self._offer_lock:
            offered, self._offered = self._offered, None
        if offered is not None:
            self._swap(offered)
        wanted = self._slots.book.serving
        if wanted is None:
            return None
        if self._engine is None or self._engine.ref.digest != wanted.ref.digest:
            self._settle(wanted)
            after = self._slots.book.serving
            if after is not None and after.ref.digest != wanted.ref.digest:
                self._settle(after)  # what was wanted has just been given up, and a window waits
        return self._engine

    def window_served(self, *, deadline_missed: bool) -> None:
        """Count a window that the engine has judged, and end its probation when it is over."""
        self._failures = 0
        self._recent.served()
        if self._engine is None:
            return
        self._unlooked = True
        probation = self._probation_now(self._engine.ref)
        if probation is None:
            self._note_that_it_lasts()
            return
        probation.windows += 1
        probation.deadline_misses += deadline_missed
        if reason := probation.breach(self._rules):
            self._give_up(self._engine.ref, reason)
        elif probation.over(self._rules, self._clock.monotonic_s()):
            self._promote(self._engine)

    def window_failed(self, reason: str, failed_on: NDArray[np.generic] | None = None) -> None:
        """Count a window in which the engine failed, and go back or open it again.

        Args:
            reason: what it did wrong, in words.
            failed_on: what it was asked; it has to answer it before it decides again.
        """
        self._count_failure()
        if self._engine is None:
            return
        ref = self._engine.ref
        too_many = self._recent.too_many(self._clock.monotonic_s())
        if self._probation_now(ref) is not None:
            self._give_up(ref, reason)
        elif too_many is not None:
            self._give_up(ref, f"{reason}; {too_many}")
        elif self._can_go_back(ref) and self._engine.opened_in_s > QUICK_TO_OPEN_S:
            self._give_up(ref, f"{reason}; it takes {self._engine.opened_in_s:.0f} s to open, too long to try it again")
        self._failed_on = failed_on.copy() if failed_on is not None else None
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
        self._engine, self._last, self._failed_on = engine, None, None
        self._opened_s, self._own_before = self._clock.monotonic_s(), self._own_memory()
        self._count_for(engine.ref)
        self._lasts = False
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
        self._count_for(wanted.ref)
        try:
            bundle = load(self._slots.bundle_path(wanted.ref), expected_digest=wanted.ref.digest)
            within_s = PROVE_WITHIN_S if self._can_go_back(wanted.ref) else None
            engine = self._open(bundle, within_s=within_s, again=self._failed_on if within_s is not None else None)
        except LinesideError as error:
            self._opening_failed(wanted, error)
            return
        self._take(engine)
        detail = f"{_words(engine.ref)} opened" + (f"; {engine.note}" if engine.note else "")
        self._tell("bundle_opened", "warning" if engine.note else "info", detail, _data(engine.ref))

    def _opening_failed(self, wanted: Slot, error: LinesideError) -> None:
        self._count_failure()
        self._last = None
        self.problem = f"{_words(wanted.ref)} cannot be opened: {error}"
        self._next_try_s = self._clock.monotonic_s() + self._wait_s()
        too_many = self._recent.too_many(self._clock.monotonic_s())
        if wanted.state == "trial" or too_many is not None:
            self._give_up(wanted.ref, str(error) if too_many is None else f"{error}; {too_many}")
        else:
            self._tell("bundle_not_opened", "alarm", self.problem, _data(wanted.ref))

    def _promote(self, engine: Engine) -> None:
        def still_on_trial(book: slots.Book, now: int) -> slots.Book:
            return slots.served(book, now) if book.state(engine.ref.digest) == "trial" else book

        self._slots.change(still_on_trial)
        self._probation = None
        self._close_fallback()
        self._tell("bundle_promoted", "info", f"{_words(engine.ref)} has lasted its probation", _data(engine.ref))

    def _give_up(self, ref: BundleRef, reason: str) -> None:
        before = self._slots.book
        after = self._slots.change(lambda book, now: slots.breached(book, ref, reason, now))
        self._probation = None
        if after.state(ref.digest) == "good":
            self._tell_alone(ref, reason)
            return
        self._failures = 0
        self._next_try_s = 0.0
        if after == before:
            return  # another station of this model was quicker, or it was asked back meanwhile: told already
        back = after.serving
        detail = f"{_words(ref)}: {reason}; back to {_words(back.ref) if back else 'none'}"
        self._tell("bundle_failed", "alarm", detail, _data(ref))

    def _tell_alone(self, ref: BundleRef, reason: str) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_alarm_s:
            self._next_alarm_s = now_s + ALONE_EVERY_S
            self._tell("bundle_failed", "alarm", f"{_words(ref)}: {reason}; no other good bundle here", _data(ref))

    def _look_at_memory(self, engine: Engine) -> None:
        """End a trial that holds too much, go back from a bundle in service that leaks, or open it anew."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_look_s:
            return
        self._next_look_s, self._unlooked = now_s + LOOK_AT_MEMORY_S, False
        reason = self._too_much_memory(engine)
        if reason is None:
            return
        leaks = now_s - self._opened_s < LEAK_WITHIN_S and self._slots.book.previous is not None
        if leaks or self._probation_now(engine.ref) is not None:
            self._give_up(engine.ref, reason)
            return
        self._close_engine()
        self._next_look_s = now_s + REOPENED_LOOK_S
        self._tell("bundle_failed", "alarm", f"{_words(engine.ref)}: {reason}; opened anew", _data(engine.ref))

    def _too_much_memory(self, engine: Engine) -> str | None:
        limit = self._rules.max_memory_bytes
        child = engine.session.memory_bytes()
        if child > limit:
            return f"used {child} bytes of memory, more than {limit}"
        grown = 0 if child else self._own_memory() - self._own_before
        return f"the daemon has grown by {grown} bytes since it decides, more than {limit}" if grown > limit else None

    def _can_go_back(self, ref: BundleRef) -> bool:
        """Return whether another good bundle is here, should this one be given up."""
        book = self._slots.book
        return book.current is not None if book.state(ref.digest) == "trial" else book.previous is not None

    def _probation_now(self, ref: BundleRef) -> Probation | None:
        """Return the probation that still runs, None if another station with this model has ended it."""
        if self._probation is not None and self._slots.book.state(ref.digest) != "trial":
            self._probation = None
        return self._probation

    def _note_that_it_lasts(self) -> None:
        if not self._lasts and self._clock.monotonic_s() - self._opened_s >= LASTS_S:
            self._lasts = True
            with suppress(StoreError):  # a full disk: the starts go on being counted, deciding comes first
                self._slots.change(slots.lasted)

    def _count_failure(self) -> None:
        self._failures += 1
        self._recent.failed(self._clock.monotonic_s())

    def _count_for(self, ref: BundleRef) -> None:
        if ref.digest != self._counted:
            self._failures, self._recent, self._counted = 0, RecentFailures(), ref.digest
            self._failed_on = None

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


def _words(ref: BundleRef) -> str:
    return f"{ref.name} {ref.version}"


def _data(ref: BundleRef) -> dict[str, Any]:
    return {"bundle": ref.model_dump()}
