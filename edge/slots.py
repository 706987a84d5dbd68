"""Which bundle of a model decides, which is on trial, which are trusted: a pure book with a transition table.

Rules:
- A bundle on trial is never recorded as current: losing power at any moment leaves the last good one current.
- Every change of the book is persisted (see `slotfile`) before it takes effect.
- A bundle that failed here stays bad here: it is never downloaded or tried again on this device.
- Falling back needs no network: the previous good bundle stays on disk.

The table: event, state before, state after, and what a power cut right after it means.

| event      | from   | to     | if the power dies here                                                    |
|------------|--------|--------|---------------------------------------------------------------------------|
| preloaded  | empty  | good   | the file was on the medium before first start; it is simply read again     |
| downloaded | empty  | staged | the checked file is on disk; the current bundle goes on deciding           |
| activated  | staged | trial  | next start counts one more start of the trial, then goes on with it        |
| activated  | good   | good   | a switch between trusted bundles: the book names the new current           |
| served     | trial  | good   | promoted: the book names it current and its forerunner previous            |
| breached   | trial  | bad    | the current bundle was never changed; it decides at next start             |
| breached   | good   | bad    | only where a previous good one exists, which becomes current               |
| refused    | staged | bad    | it did not open or prove itself here; it is not tried again                |
| withdrawn  | trial  | staged | asked to go back before the probation was over: nothing is held against it |
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from edge.wire.base import BundleRef
from edge.wire.terms import SlotState

Event = Literal["preloaded", "downloaded", "activated", "served", "breached", "refused", "withdrawn"]

TRANSITIONS: dict[tuple[Event, SlotState], SlotState] = {
    ("preloaded", "empty"): "good",
    ("downloaded", "empty"): "staged",
    ("activated", "staged"): "trial",
    ("activated", "good"): "good",
    ("served", "trial"): "good",
    ("breached", "trial"): "bad",
    ("breached", "good"): "bad",
    ("refused", "staged"): "bad",
    ("withdrawn", "trial"): "staged",
}

MAX_STARTS = 4
"""Starts of the daemon that a bundle may see before it has shown that it lasts: more means that it kills the daemon."""
MAX_REMEMBERED = 32
"""Bundles that the book remembers, the oldest unused forgotten first."""


@dataclass(frozen=True)
class Slot:
    """One bundle and what has become of it."""

    ref: BundleRef
    state: SlotState
    since_ms: int
    reason: str | None = None
    starts: int = 0


@dataclass(frozen=True)
class Book:
    """All that a device knows about the bundles of one model."""

    slots: tuple[Slot, ...] = ()
    current: str | None = None
    """Digest of the good bundle that decides unless another is on trial."""
    previous: str | None = None
    """Digest of the good bundle to return to."""
    floor: str | None = None
    """Version that the device was set up with: older ones that never ran here are refused."""

    def slot(self, digest: str | None) -> Slot | None:
        return next((slot for slot in self.slots if slot.ref.digest == digest), None)

    def state(self, digest: str) -> SlotState:
        found = self.slot(digest)
        return found.state if found else "empty"

    @property
    def trial(self) -> Slot | None:
        return next((slot for slot in self.slots if slot.state == "trial"), None)

    @cached_property
    def serving(self) -> Slot | None:
        """The bundle that should decide: the one on trial, else the current one. Asked for before every window."""
        return self.trial or self.slot(self.current)

    @property
    def needed(self) -> set[str]:
        """Digests whose files must stay on disk."""
        kept = {slot.ref.digest for slot in self.slots if slot.state in ("staged", "trial")}
        return kept | {digest for digest in (self.current, self.previous) if digest}


def next_state(event: Event, state: SlotState) -> SlotState:
    """Return the state after an event.

    Raises:
        ValueError: the table has no such line (a bug in the caller).
    """
    if (event, state) not in TRANSITIONS:
        raise ValueError(f"slot: {event} is not possible in state {state}")
    return TRANSITIONS[event, state]


def preloaded(book: Book, ref: BundleRef, now_ms: int) -> Book:
    """The bundle that the device was set up with, golden examples passed: good from the start."""
    return replace(_put(book, ref, "preloaded", now_ms), current=ref.digest, floor=ref.version)


def downloaded(book: Book, ref: BundleRef, now_ms: int) -> Book:
    """A checked bundle lies on disk."""
    return _put(book, ref, "downloaded", now_ms)


def activated(book: Book, ref: BundleRef, now_ms: int) -> Book:
    """Serve this bundle: on trial if it is new here, at once if it was good here before."""
    after = _put(withdrawn(book, now_ms), ref, "activated", now_ms)
    if after.state(ref.digest) == "trial" or ref.digest == book.current:
        return after
    return replace(after, current=ref.digest, previous=book.current)


def asked_back(book: Book, ref: BundleRef, now_ms: int) -> Book:
    """End a trial if the bundle before it is asked for. No trial (any more): that bundle is to be activated."""
    return withdrawn(book, now_ms) if ref.digest == book.current else book


def withdrawn(book: Book, now_ms: int) -> Book:
    """End a trial without a verdict, if one runs."""
    return _put(book, book.trial.ref, "withdrawn", now_ms) if book.trial else book


def served(book: Book, now_ms: int) -> Book:
    """The trial has lasted its probation: it becomes current."""
    trial = _the_trial(book)
    return replace(_put(book, trial.ref, "served", now_ms), current=trial.ref.digest, previous=book.current)


def breached(book: Book, ref: BundleRef, reason: str, now_ms: int) -> Book:
    """A bundle crashed, hung, leaked or answered nonsense: back to the last good one.

    A current bundle with no good one before it stays current: deferring with a known model beats having none. Nothing
    changes for a bundle that decides no more (another station of the model was quicker, or it was asked back).
    """
    if book.state(ref.digest) not in ("trial", "good"):
        return book
    if book.state(ref.digest) == "good":
        if ref.digest != book.current or book.previous is None:
            return book
        book = replace(book, current=book.previous, previous=None)
    return _put(book, ref, "breached", now_ms, reason)


def refused(book: Book, ref: BundleRef, reason: str, now_ms: int) -> Book:
    """A staged bundle did not open or did not give its golden outputs."""
    return _put(book, ref, "refused", now_ms, reason)


def started(book: Book, now_ms: int, *, contained: bool = True) -> Book:
    """Count a start of the daemon; a bundle that has seen too many is bad.

    A trial is always counted. A current bundle is counted only where it runs within the daemon (not `contained`), which
    it can then end, and only if there is a good one to go back to.
    """
    counted = book.trial
    if counted is None and not contained and book.previous is not None:
        counted = book.slot(book.current)
    if counted is None:
        return book
    counted = replace(counted, starts=counted.starts + 1)
    on_trial = counted.state == "trial"
    book = _with(book, counted)
    if counted.starts > MAX_STARTS:
        short = "before its probation was over" if on_trial else "and it never lasted a minute"
        return breached(book, counted.ref, f"the daemon started {counted.starts} times {short}", now_ms)
    return book


def lasted(book: Book, _now_ms: int) -> Book:
    """The current bundle has decided for a while: starts before are not held against it."""
    current = book.slot(book.current)
    return book if current is None or not current.starts else _with(book, replace(current, starts=0))


def in_words(book: Book) -> str:
    """Return what decides, what is on trial, and what failed here and why, for people."""
    serving = book.serving
    words = [f"{serving.ref.version} decides" if serving else "no bundle"]
    if book.trial is not None:
        current = book.slot(book.current)
        words[0] += f" on trial, {current.ref.version} before it" if current else " on trial"
    previous = book.slot(book.previous)
    words += [f"{previous.ref.version} to go back to"] if previous else []
    words += [f"{slot.ref.version} failed: {slot.reason}" for slot in book.slots if slot.state == "bad"]
    return "; ".join(words)


def _with(book: Book, slot: Slot) -> Book:
    return replace(book, slots=tuple(slot if s.ref.digest == slot.ref.digest else s for s in book.slots))


def _put(book: Book, ref: BundleRef, event: Event, now_ms: int, reason: str | None = None) -> Book:
    slot = Slot(ref, next_state(event, book.state(ref.digest)), now_ms, reason)
    others = tuple(s for s in book.slots if s.ref.digest != ref.digest)
    return _forget(replace(book, slots=(*others, slot)))


def _forget(book: Book) -> Book:
    unused = [s for s in book.slots if s.ref.digest not in book.needed]
    surplus = {s.ref.digest for s in unused[: max(0, len(book.slots) - MAX_REMEMBERED)]}
    return replace(book, slots=tuple(s for s in book.slots if s.ref.digest not in surplus))


def _the_trial(book: Book) -> Slot:
    if book.trial is None:
        raise ValueError("slot: no bundle is on trial")
    return book.trial
