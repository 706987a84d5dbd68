"""The data's way on the device, from one window to one recorded decision and its outcome.

Rules:
- read → gate → preprocess → infer → recognise → calibrate → decide (→ a second opinion, where one is wanted)
  → commit → act → commit the outcome.
- Whatever goes wrong on the way ends in a deferral with its reason, or in the station's safe action.
- A decision is committed before the actuator moves; a decision that cannot be committed is not acted on:
  the station takes its safe action, which is counted and told when there is room again.
- A bundle is swapped between two windows, never within one.
"""

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from edge import decide as rules
from edge import privacy, steps
from edge.acting import Acting
from edge.actuators.interface import Actuator
from edge.clock import Clock
from edge.errors import StoreError
from edge.linewatch import LineWatch
from edge.observe import EventSink, Observer
from edge.serving import Serving
from edge.shadow import PATIENCE, Shadow
from edge.sources.heard import Heard
from edge.sources.interface import Source
from edge.values import Judgement, StationSettings, Window
from edge.wire.rows import FEATURES_MEDIA_TYPE, DecisionRow, InputRef, OutcomeRow
from edge.work import DeferBudget, Unjudged, Work

if TYPE_CHECKING:
    from edge.asking import Asking

WAIT_S = 0.25
"""Longest wait for one window: how late a stop or a swap can be noticed while nothing comes."""


class DecisionStore(EventSink, Protocol):
    """The part of the store that the pipeline needs."""

    def append_decision(
        self,
        row: DecisionRow,
        *,
        input_key: str | None,
        keep: tuple[bytes, str] | None,
        wants_outcome: bool,
        outcome: OutcomeRow | None,
    ) -> DecisionRow: ...

    def append_outcome(self, row: OutcomeRow) -> None: ...


@dataclass(frozen=True)
class Parts:
    """Everything a pipeline is put together from."""

    source: Source
    serving: Serving
    actuator: Actuator
    store: DecisionStore
    observer: Observer
    settings: Callable[[], StationSettings]
    clock: Clock
    boot_id: str
    shadow: Shadow | None = None
    asking: "Asking | None" = None
    """Asks a server about what is deferred; None if there is none."""
    draw: Callable[[], float] = field(default_factory=lambda: random.SystemRandom().random)
    heard: Callable[[], list[Heard]] | None = None
    """Gives what was heard since it was last asked; None if the source does not hear."""
    line: LineWatch | None = None
    """Holds the station to its rules; None if it has none."""


class Pipeline:
    """Decides one window after another at one station. Belongs to one thread."""

    def __init__(self, parts: Parts) -> None:
        self._p = parts
        self._budget = DeferBudget(parts.clock)
        station = parts.settings().station
        self._acting = Acting(parts.actuator, parts.store, parts.clock, parts.boot_id, station)
        self._line = parts.line
        self.last: tuple[Window, DecisionRow | None] | None = None
        """The last window with its decision, for those who look."""
        self.turns = 0
        """How often it has looked for a window: what stands still is stuck."""
        self.decisions = 0
        self.last_decision_at_ms: int | None = None
        self.unrecorded = 0
        """Parts that took the safe action because their decision found no room on disk, not yet told of."""

    def run_once(self) -> DecisionRow | None:
        """Decide on the next window; None if none came in time, or if it could not be recorded.

        Raises:
            SourceError: the source is gone.
        """
        engine = self._p.serving.current()
        window = self._next_window()
        if window is None:
            self._idle()
            return None
        work = Work(window, self._p.settings(), engine)
        if window.waited_ms:
            work.steps_ms["wait"] = window.waited_ms
        if window.hang_over_ms:
            work.steps_ms["hang_over"] = window.hang_over_ms
        in_budget = self._budget.left(work.settings.defer_budget_per_h)
        try:
            steps.gate(work, self._p.serving.problem)
            tensor = steps.preprocess(work)
            logits = steps.infer(work, tensor)
            steps.recognise(work)
            scores = steps.calibrate(work, logits)
            judgement = steps.decide(work, scores, self._p.draw, in_budget=in_budget)
            judgement = self._compared(work, judgement, in_budget=in_budget)
        except Unjudged as why:
            judgement = steps.defer(work, why, in_budget=in_budget)
        if self._line is not None:
            judgement = self._line.held(judgement, work.settings)
        decision = self._commit(work, judgement)
        if window.answer is not None:
            window.answer(decision)
        if decision is not None:
            self._acting.act(decision)
            if self._line is not None:
                self._line.decided(decision)
        self._feedback(work)
        self._observe(work, decision)
        self.last = privacy.shown(work.settings, window, decision)
        if self._p.shadow is not None and decision is not None:
            self._p.shadow.offer(window, decision)
        if self._p.asking is not None and decision is not None:
            self._p.asking.offer(window, decision)
        return decision

    @property
    def problem(self) -> str | None:
        """What keeps the line or the plant from doing what is decided; also from other threads."""
        stopped = self._line.stopped if self._line is not None else None
        if stopped is not None:
            return f"the line is stopped: {stopped}; acknowledge it at the device"
        return self._acting.problem

    def run(self, stop: threading.Event) -> None:
        """Decide until told to stop or the source is exhausted.

        Raises:
            SourceError: the source is gone; the caller opens it again.
        """
        while not stop.is_set() and not self._p.source.exhausted:
            self.turns += 1
            try:
                self.run_once()
            except StoreError:
                # Telemetry or an event found no room; decisions have a way of their own (`_commit`).
                stop.wait(WAIT_S)

    def run_out(self, limit_s: float, hurry: threading.Event) -> None:
        """Decide on what a source that takes nothing more in still holds, for `limit_s` seconds or until it hurries.

        Raises:
            SourceError: the source is gone.
        """
        until_s = self._p.clock.monotonic_s() + limit_s
        while not self._p.source.exhausted and not hurry.is_set() and self._p.clock.monotonic_s() < until_s:
            self.turns += 1
            try:
                self.run_once()
            except StoreError:
                return

    def finish(self) -> None:
        """Write what was counted since the last window of telemetry, and the last outcome."""
        self._acting.settle()
        self._listened()
        try:
            self._p.observer.flush()
        except StoreError:
            # Counts can be made again from the decisions; there is nobody left to tell.
            return

    def _next_window(self) -> Window | None:
        """Return the next window; an outcome waits for its decision only if the window is there already."""
        window = None
        if self._acting.owed is not None:
            try:
                window = self._p.source.read(0.0)
            finally:
                if window is None:
                    self._acting.settle()
        return window or self._p.source.read(WAIT_S)

    def _idle(self) -> None:
        """Do what has to be done although no window came."""
        self._acting.look()
        if self._line is not None:
            self._line.look(self._p.settings())
        self._listened()
        self._p.observer.flush_if_due()

    def _compared(self, work: Work, judgement: Judgement, *, in_budget: bool) -> Judgement:
        """Return the judgement, or a deferral if a candidate in the shadow contradicts it and that is wanted."""
        policy, settings = work.loaded.manifest.policy, work.settings
        if self._p.shadow is None or not rules.asks_candidate(judgement, policy, settings):
            return judgement
        with work.step("second_opinion"):
            left_s = (settings.deadline_ms - work.elapsed_ms) / 1000
            other = self._p.shadow.ask(work.window, left_s * PATIENCE)
        return judgement if other is None else rules.compared(judgement, other, policy, settings, in_budget=in_budget)

    def _listened(self) -> None:
        if self._p.heard is not None:
            self._p.observer.heard(self._p.heard())

    def _observe(self, work: Work, decision: DecisionRow | None) -> None:
        self._listened()
        if decision is not None:
            self._p.observer.decided(decision, work.engine.manifest if work.engine else None)

    def _feedback(self, work: Work) -> None:
        """Tell serving how its engine did, so that it can promote it, or take it back before the next window."""
        if work.engine_failure is not None:
            self._p.serving.window_failed(work.engine_failure, work.tensor)
        elif work.judged:
            self._p.serving.window_served(deadline_missed=work.late)

    def _commit(self, work: Work, judgement: Judgement) -> DecisionRow | None:
        raw, keeps = work.window.raw, privacy.keeps(work.settings, judgement, work.window)
        if raw is None and keeps == "input" and work.window.encode is not None:
            raw = work.window.encode()
        keep = (raw, work.window.media_type) if keeps == "input" and raw else None
        row = self._record(work, judgement, raw, kept=keep is not None)
        if keeps == "features" and (features := steps.features(work)) is not None:
            named = row.input.model_copy(update={"features": hashlib.sha256(features).hexdigest()})
            row, keep = row.model_copy(update={"input": named}), (features, FEATURES_MEDIA_TYPE)
        try:
            decision = self._p.store.append_decision(
                row,
                input_key=None if work.window.live else work.window.key,
                keep=keep,
                wants_outcome=row.action != "none",
                outcome=self._acting.owed,
            )
            self._acting.owed = None
            self._tell_unrecorded()
        except StoreError as error:
            self._not_recorded(row, error)
            return None
        if judgement.action == "hand_over":
            self._budget.spend()
        self.decisions += 1
        self.last_decision_at_ms = decision.at_ms
        # Whoever asked gets the text, and it is counted, also where it must not stand in the record.
        return decision if decision.text == work.text else decision.model_copy(update={"text": work.text})

    def _record(self, work: Work, judgement: Judgement, raw: bytes | None, *, kept: bool) -> DecisionRow:
        window = work.window
        content: bytes | memoryview = raw if raw is not None else b""
        if raw is None and window.data is not None:
            content = window.data.ravel().view("u1").data
        engine = work.engine
        return DecisionRow(
            seq=1,
            station=work.settings.station,
            at_ms=self._p.clock.now_ms(),
            boot_id=self._p.boot_id,
            monotonic_ms=int(self._p.clock.monotonic_s() * 1000),
            mode=work.settings.mode,
            verdict=judgement.verdict,
            action=judgement.action,
            reason=judgement.reason,
            detail=judgement.detail,
            audit_probability=judgement.audit_probability,
            label=judgement.label,
            confidence=judgement.confidence,
            scores=judgement.scores,
            bundle=engine.ref if engine else None,
            runtime=engine.session.description if engine else None,
            policy=judgement.policy,
            input=InputRef(
                source=window.source,
                name=window.name,
                digest=hashlib.sha256(content).hexdigest(),
                media_type=window.media_type,
                size_bytes=len(content),
                kept=kept,
            ),
            metrics=work.metrics,
            where=steps.where(work, judgement),
            text=work.text if privacy.may_use(work.settings, window) else None,
            latency_ms={"decode": window.decode_ms, **work.steps_ms, "total": work.elapsed_ms},
        )

    def _not_recorded(self, row: DecisionRow, error: StoreError) -> None:
        self.unrecorded += 1
        self._acting.safe(f"{row.input.name}: not recorded: {error}")

    def _tell_unrecorded(self) -> None:
        if not self.unrecorded:
            return
        count, self.unrecorded = self.unrecorded, 0
        data: dict[str, Any] = {"count": count}
        detail = f"{count} parts took the safe action because their decisions found no room on disk"
        station = self._p.settings().station
        try:
            self._p.store.append_event(
                "decisions_unrecorded",
                boot_id=self._p.boot_id,
                severity="alarm",
                station=station,
                detail=detail,
                data=data,
            )
        except StoreError:
            self.unrecorded += count
