"""Asks a prediction server about what the station defers or has no word for, beside the station, never before it.

Rules:
- A thread with a bounded queue: the station hands a deferral over in passing and never waits. Beyond the bound the
  oldest question is dropped and counted.
- The decision stands, whatever comes back: the answer is an event beside it. A server that is away costs nobody a
  decision; it is an alarm once as the trouble begins and an event once as it ends.
- Sound is sent only with the consent of those who are heard, also if it is withdrawn while a question waits.
- One question has one time-out for all its tries; a server that says when to come again is not asked before.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from edge.actuators.hysteresis import Hysteresis
from edge.clock import Clock
from edge.config import AskSection
from edge.errors import LinkError, StoreError
from edge.predictor import Answer, Predictor
from edge.privacy import may_use
from edge.store import Store
from edge.values import StationSettings, Window
from edge.wire.rows import SERVER_ANSWERED_EVENT, DecisionRow

TELL_EVERY_S = 60.0
"""Dropped questions are told together, at most so often."""
ACCEPTED = ("accept", "pass")


@dataclass(frozen=True)
class _Question:
    window: Window
    decision: DecisionRow
    asked_s: float
    """When the decision was committed, on the monotonic clock."""


class Asking:
    """One station's questions. `offer` belongs to the station's thread, everything else to its own."""

    def __init__(
        self,
        station: str,
        model: str,
        config: AskSection,
        open_store: Callable[[], Store],
        settings: Callable[[], StationSettings],
        clock: Clock,
        boot_id: str,
    ) -> None:
        """Prepare it.

        Args:
            station: whose deferrals.
            model: what the station runs, for the events.
            config: whom to ask, about what.
            open_store: opens a connection for this thread.
            settings: the station's settings now, for the consent of those who are heard.
            clock: for waiting times.
            boot_id: of this start of the daemon.
        """
        self._station, self._model, self._config = station, model, config
        self._open_store, self._clock, self._boot_id = open_store, clock, boot_id
        self._settings = settings
        self._changed = threading.Condition()
        self._waiting: deque[_Question] = deque()
        self._stop = threading.Event()
        self._busy = False
        self._trouble = Hysteresis()
        self._failed = 0
        self._dropped = self._told_dropped = 0
        self._tell_due_s = clock.monotonic_s()
        self._predictor = Predictor(config.url, config.token_file, config.timeout_ms / 1000, clock, self._stop)
        self.problem: str | None = None
        """Why the server gives no answers, or None; also read from other threads."""
        self._thread = threading.Thread(target=self._run, name=f"asking-{station}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the question it is on; what still waits is not asked any more, and counted."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(timeout_s)

    @property
    def idle(self) -> bool:
        """Whether everything offered so far was asked, or dropped."""
        with self._changed:
            return not self._waiting and not self._busy

    def offer(self, window: Window, decision: DecisionRow) -> None:
        """Hand over a decision in passing; asked about are deferrals for the reasons, and labels, that it names."""
        if not self._wanted(decision) or not may_use(self._settings(), window):
            return
        with self._changed:
            self._waiting.append(_Question(window, decision, self._clock.monotonic_s()))
            if len(self._waiting) > self._config.max_waiting:
                self._waiting.popleft()
                self._dropped += 1
            self._changed.notify_all()

    def _wanted(self, decision: DecisionRow) -> bool:
        if decision.verdict == "defer":
            return decision.reason in self._config.reasons
        return decision.label in self._config.labels

    def _run(self) -> None:
        with self._open_store() as store:
            while not self._stop.is_set():
                question = self._next()
                if question is not None:
                    self._ask(store, question)
                if self._clock.monotonic_s() >= self._tell_due_s:
                    self._tell_dropped(store)
            self._dropped += len(self._waiting)
            self._tell_dropped(store)
        self._predictor.close()

    def _next(self) -> _Question | None:
        with self._changed:
            self._busy = False
            if not self._waiting:
                self._changed.wait(1.0)  # at most: dropped questions have to be told as well
            if not self._waiting or self._stop.is_set():
                return None
            self._busy = True
            return self._waiting.popleft()

    def _ask(self, store: Store, question: _Question) -> None:
        window, begun_s = question.window, self._clock.monotonic_s()
        raw = window.raw or (window.encode() if window.encode else None)
        # Nothing to show anybody: an input that could not be read, or consent that was withdrawn while it waited.
        if not raw or not may_use(self._settings(), window):
            return
        try:
            answer = self._predictor.ask(raw, window.name, window.media_type)
            if answer.digest not in (None, hashlib.sha256(raw).hexdigest()):
                raise LinkError("the server answered about something else than what was sent")
        except LinkError as error:
            self._failure(store, str(error))
            return
        except Exception as error:  # noqa: BLE001 - whoever asks never dies in silence
            self._failure(store, f"{type(error).__name__}: {error}")
            return
        self._answered(store, question, answer, begun_s)
        self._worked(store)

    def _answered(self, store: Store, question: _Question, answer: Answer, begun_s: float) -> None:
        decision, now_s = question.decision, self._clock.monotonic_s()
        # An audit of a sure decision is no deferral: no server spares a person that.
        accepted, deferred = answer.verdict in ACCEPTED, decision.verdict == "defer"
        latency: dict[str, float] = {
            "wait": (begun_s - question.asked_s) * 1000,
            "total": (now_s - question.asked_s) * 1000,
            **answer.latency_ms,
        }
        if "hang_over" in decision.latency_ms:
            own_ms = decision.latency_ms["hang_over"] + decision.latency_ms.get("total", 0.0)
            latency["since_speech"] = own_ms + latency["total"]
        data = {
            "decision_seq": decision.seq,
            "verdict": answer.verdict,
            "label": answer.label,
            "text": answer.text,
            "confidence": answer.confidence,
            "bundle": answer.bundle,
            "digest": answer.digest,
            "latency_ms": {name: round(value, 3) for name, value in latency.items()},
            "review": "closed" if accepted and deferred and self._config.review == "close" else "kept",
        }
        said = answer.text if answer.text is not None else answer.label
        words = f"{answer.verdict} {said!r}" if said is not None else answer.verdict
        self._event(store, SERVER_ANSWERED_EVENT, "info", f"{decision.input.name}: {words}", data)

    def _failure(self, store: Store, why: str) -> None:
        self.problem = f"{self._config.url}: {why}"
        self._failed += 1
        if self._trouble.failed():
            data = {"url": self._config.url}
            # Not told for want of room: the next failure tells it.
            self._trouble.failing = self._event(store, "server_unreachable", "alarm", self.problem, data)

    def _worked(self, store: Store) -> None:
        if self.problem is None:
            return
        told = self._trouble.failing
        if told and not self._trouble.worked():
            return
        self.problem, failed, self._failed = None, self._failed, 0
        if told:
            detail = f"the server answers again; {failed} questions were left without an answer"
            self._event(store, "server_reachable", "info", detail, {"url": self._config.url, "failed": failed})

    def _tell_dropped(self, store: Store) -> None:
        self._tell_due_s = self._clock.monotonic_s() + TELL_EVERY_S
        count = self._dropped - self._told_dropped
        if not count:
            return
        detail = f"{count} inputs were not asked about: the server is too slow for them"
        if self._event(store, "questions_dropped", "warning", detail, {"count": count}):
            self._told_dropped += count

    def _event(
        self, store: Store, name: str, severity: Literal["info", "warning", "alarm"], detail: str, data: dict[str, Any]
    ) -> bool:
        try:
            store.append_event(
                name,
                boot_id=self._boot_id,
                severity=severity,
                station=self._station,
                model=self._model,
                detail=detail,
                data=data,
            )
        except StoreError:
            # A full disk: the deferral is in the record, and a person sees it.
            return False
        return True
