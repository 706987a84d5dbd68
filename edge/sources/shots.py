"""Where frames, firings of a trigger, and the pipeline meet: which frame is decided on, and what is passed over.

Rules:
- Without a trigger: the newest frame wins and what it replaces is counted, or every frame comes in its order.
- With a trigger each firing gives one shot: the first frame that came after it, or the reason why there is none. A
  part is never passed over in silence, not even while the camera is away.
- A camera that is away or still gives one shot with the reason, once; one that goes on giving bad frames gives one a
  second (`PROBLEM_EVERY_S`), so that a lens cap over night does not fill the record.
- A rate is no part: it is free running with fewer frames.
- A problem stands until the camera was good for `CLEAR_S`: one that flickers is told once, not with every frame.
- Two parts with the same picture to the last bit: the second one is frozen.
"""

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.clock import Clock
from edge.errors import SourceError
from edge.sources.frames import U8, FrameCheck, thumbnail
from edge.sources.interface import News

PROBLEM_EVERY_S = 1.0
CLEAR_S = 2.0
OPENING_S = 10.0
"""How long a camera may take to its first frame: network cameras need seconds."""
NEWS_EVERY_S = 300.0
MAX_FIRINGS = 10_000
"""Parts that may wait without a frame; beyond, they are counted and told with an alarm."""
_POLL_S = 0.1


@dataclass(frozen=True)
class ShotRules:
    """How frames become shots."""

    order: Literal["newest", "every"]
    max_gap_s: float
    """Longest silence of the camera; beyond it, the camera is slow."""
    queue: int
    """Most frames that wait to be decided: each takes its full size in memory."""
    triggered: bool = False
    parts: bool = True
    """With a trigger: whether each firing is a part that must be decided (else a later one replaces it)."""
    delay_s: float = 0.0
    """From the firing to the frame."""
    ends: bool = False
    """Whether the frames are a file's, which can wait."""


@dataclass(frozen=True)
class Shot:
    """One frame to decide on, or why there is none."""

    number: int
    at_ms: int
    at_s: float
    text: str
    """What the trigger said, for example a part's number."""
    frame: U8 | None
    problem: str | None


class Shots:
    """Takes frames and firings from their threads, and gives shots to the pipeline's."""

    def __init__(self, clock: Clock, check: FrameCheck, rules: ShotRules) -> None:
        self._clock, self._check, self._rules = clock, check, rules
        self._changed = threading.Condition()
        self._ready: deque[Shot] = deque()
        self._firings: deque[tuple[float, str]] = deque()
        self._number = 0
        self._opened_s = clock.monotonic_s()
        self._seen_s: float | None = None
        self._problem: str | None = None
        self._standing: tuple[str, float] | None = None
        """The problem that people are told of, and when it was there last."""
        self._told_problem: str | None = None
        self._problem_due_s = 0.0
        self._last_part: tuple[U8, U8] | None = None
        self._ended = self._draining = self._closed = False
        self.skipped = self.overrun = 0
        self._told_skipped = self._told_overrun = 0
        self._news_due_s = self._opened_s + NEWS_EVERY_S

    # ── from the capture's thread ─────────────────────────────────────────────────────────────────────────────

    def frame(self, frame: U8) -> None:
        """Take a frame that came just now."""
        now_s = self._clock.monotonic_s()
        self._came(frame, self._check.problem(frame, now_s), now_s)

    def damaged(self, why: str) -> None:
        """Take note of a frame that came just now and cannot be judged."""
        self._came(None, f"damaged: {why}", self._clock.monotonic_s())

    def _came(self, frame: U8 | None, problem: str | None, now_s: float) -> None:
        with self._changed:
            self._seen_s = now_s
            self._note(problem, now_s)
            if self._draining and not self._firings:
                return
            if self._rules.triggered:
                self._serve_firings(frame, problem, now_s)
            elif self._rules.order == "every":
                self._put_in_order(frame, problem)
            else:
                self._put_newest(frame, problem, now_s)
            self._changed.notify_all()

    def lost(self, why: str) -> None:
        """The camera is away."""
        with self._changed:
            self._seen_s = None
            self._opened_s = self._clock.monotonic_s()
            self._note(f"unplugged: {why}", self._opened_s)
            self._changed.notify_all()

    def ended(self) -> None:
        """There will be no more frames."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    # ── from the trigger's thread ─────────────────────────────────────────────────────────────────────────────

    def fire(self, text: str) -> None:
        """Ask for the next frame: a part is in place."""
        with self._changed:
            if self._draining:
                return
            if not self._rules.parts:
                self.skipped += len(self._ready)
                self._ready.clear()
                self._firings.clear()
            elif len(self._firings) + len(self._ready) >= MAX_FIRINGS:
                self.overrun += 1
                return
            self._firings.append((self._clock.monotonic_s() + self._rules.delay_s, text))
            self._changed.notify_all()

    # ── from the pipeline's thread ────────────────────────────────────────────────────────────────────────────

    def next(self, wait_s: float) -> Shot | None:
        """Return the next shot, or None if there is none in time.

        Raises:
            SourceError: it is closed.
        """
        until_s = self._clock.monotonic_s() + wait_s
        with self._changed:
            while True:
                if self._closed:
                    raise SourceError("the source is closed", retry=False)
                now_s = self._clock.monotonic_s()
                self._notice_silence(now_s)
                if self._ready:
                    shot = self._ready.popleft()
                    self._changed.notify_all()
                    return shot
                if self._ended or (self._draining and not self._firings) or now_s >= until_s:
                    return None
                self._changed.wait(min(until_s - now_s, _POLL_S))

    @property
    def problem(self) -> str | None:
        """What is wrong with the camera, or was less than `CLEAR_S` ago; or None."""
        now_s = self._clock.monotonic_s()
        if self._problem is None and self._standing is not None and now_s - self._standing[1] >= CLEAR_S:
            self._standing = None
        return None if self._standing is None else self._standing[0]

    @property
    def exhausted(self) -> bool:
        return self._closed or ((self._ended or self._draining) and not self.waiting)

    @property
    def waiting(self) -> int:
        """Shots that were not taken yet, and parts that wait for their frame."""
        return len(self._ready) + (len(self._firings) if self._rules.parts else 0)

    def news(self) -> list[News]:
        """Return what was passed over since it was told last, at most every `NEWS_EVERY_S`; lost parts at once."""
        found: list[News] = []
        if self.overrun > self._told_overrun:
            count, self._told_overrun = self.overrun - self._told_overrun, self.overrun
            detail = f"{count} parts were not decided: {MAX_FIRINGS:,} firings of the trigger waited already"
            found.append(News("parts_overrun", detail, "alarm", {"count": count}))
        if self.skipped > self._told_skipped and self._clock.monotonic_s() >= self._news_due_s:
            self._news_due_s = self._clock.monotonic_s() + NEWS_EVERY_S
            count, self._told_skipped = self.skipped - self._told_skipped, self.skipped
            found.append(
                News("frames_skipped", f"{count} frames were passed over for newer ones", "info", {"count": count})
            )
        return found

    def drain(self) -> None:
        """Take no more parts in; those that were named still come, frames that are no parts do not."""
        with self._changed:
            self._draining = True
            if not (self._rules.triggered and self._rules.parts):
                self._ready.clear()
                self._firings.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Wake whoever waits. Safe to call twice."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()

    # ── with the lock held ────────────────────────────────────────────────────────────────────────────────────

    def _note(self, problem: str | None, now_s: float) -> None:
        self._problem = problem
        if problem is not None:
            self._standing = problem, now_s

    def _put_newest(self, frame: U8 | None, problem: str | None, now_s: float) -> None:
        if problem is not None:
            if self._told_problem == problem.partition(":")[0] and now_s < self._problem_due_s:
                self.skipped += 1
                return
            self._problem_due_s = now_s + PROBLEM_EVERY_S
        self._told_problem = problem.partition(":")[0] if problem else None
        self.skipped += len(self._ready)
        self._ready.clear()
        self._add(frame, problem)

    def _put_in_order(self, frame: U8 | None, problem: str | None) -> None:
        while self._rules.ends and len(self._ready) >= self._rules.queue and not self._closed:
            self._changed.wait(_POLL_S)
        self._told_problem = None
        if len(self._ready) >= self._rules.queue:
            self.skipped += 1
        elif not self._closed:
            self._add(frame, problem)

    def _serve_firings(self, frame: U8 | None, problem: str | None, now_s: float) -> None:
        while self._firings and self._firings[0][0] <= now_s:
            _, text = self._firings.popleft()
            if not self._rules.parts:
                self._put_newest(frame, problem, now_s)
            elif sum(shot.frame is not None for shot in self._ready) >= self._rules.queue:
                self._add(None, f"busy: {self._rules.queue} parts waited already", text)
            else:
                self._add(frame, problem or self._same_as_last_part(frame), text)

    def _same_as_last_part(self, frame: U8 | None) -> str | None:
        if frame is None or not self._check.watches_frozen:
            return None
        small, before = thumbnail(frame), self._last_part
        self._last_part = frame, small
        if before is None or before[0] is frame or not np.array_equal(before[1], small):
            return None
        return "frozen: the same picture to the last bit as of the part before"

    def _notice_silence(self, now_s: float) -> None:
        """Turn a camera that gives nothing into a problem, and that into shots."""
        since_s = self._opened_s if self._seen_s is None else self._seen_s
        allowed_s = max(OPENING_S, self._rules.max_gap_s) if self._seen_s is None else self._rules.max_gap_s
        if self._problem is None and not self._ended and now_s - since_s > allowed_s:
            self._problem = (
                f"slow: no frame for {now_s - since_s:.1f} s, expected one every {self._rules.max_gap_s:g} s"
            )
        if self._rules.triggered and self._rules.parts:
            self._expire_firings(now_s)
        elif self._problem is not None and self._problem.startswith(("unplugged", "slow")):
            kind = self._problem.partition(":")[0]
            if self._told_problem != kind:
                self._told_problem = kind
                self._add(None, self._problem)

    def _expire_firings(self, now_s: float) -> None:
        while self._firings and (self._ended or now_s - self._firings[0][0] > self._rules.max_gap_s):
            _, text = self._firings.popleft()
            slow = f"slow: no frame within {self._rules.max_gap_s:g} s of the trigger"
            self._add(None, self._problem or slow, text)

    def _add(self, frame: U8 | None, problem: str | None, text: str = "") -> None:
        self._number += 1
        self._ready.append(Shot(self._number, self._clock.now_ms(), self._clock.monotonic_s(), text, frame, problem))
