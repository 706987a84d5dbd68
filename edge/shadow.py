"""Runs a staged candidate on the windows that the incumbent decides, beside it and never before it.

Rules:
- A thread and a child of its own at the lowest priority, within a share of one core: what it has no time for is
  skipped and counted. The station hands a window over in passing and never waits.
- But where sure decisions that a candidate contradicts go to a person, the station asks first and waits, within its
  deadline; such a window is judged at once, whatever the share, and only once.
- Both results stand in the record; only counts and disagreements (with their input) go up.
- Results are written together, seldom, so that the station hardly ever finds the record locked.
- A candidate that fails is shut off and told; it has decided nothing, so nothing is taken back.
"""

import contextlib
import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from edge import privacy, steps
from edge.bundle import load
from edge.clock import Clock
from edge.engines import Engine
from edge.errors import LinesideError, StoreError
from edge.recognised import alike
from edge.shadowresults import ShadowResult
from edge.slotfile import SlotFile
from edge.slots import Slot
from edge.store import Store
from edge.values import Judgement, StationSettings, Window
from edge.wire.base import BundleRef
from edge.wire.rows import SHADOW_DISAGREED_EVENT, DecisionRow
from edge.work import Work

LOOK_S = 1.0
"""How often the slots are looked at for a candidate."""
WRITE_EVERY_S = 5.0
"""One short transaction in so long: a station at fifty windows a second meets it once in 250."""
MAX_FAILURES = 3
"""A candidate that fails so often is shut off until another one is staged."""
MAX_SENT_PER_H = 60
"""Disagreements whose input is sent; all of them are counted. People cannot look at more."""
MAX_LATENCIES = 10_000

PATIENCE = 0.5
"""Share of what is left of a window's deadline that the station waits for the candidate's word."""

Kind = Literal["agreed", "opposite", "candidate_defers", "candidate_decides"]
"""How the candidate's verdict relates to the incumbent's: `opposite` where both decide, and differently."""


@dataclass
class _Look:
    """A candidate's look at one window."""

    window: Window
    judgement: Judgement | None = None
    """None until it is judged, and if the engine failed."""
    text: str | None = None
    took_s: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Count:
    """What happened since the last event."""

    kinds: Counter[str] = field(default_factory=Counter)
    offered: int = 0
    latencies_ms: list[float] = field(default_factory=list)


class Shadow:
    """One station's shadow. `offer` belongs to the station's thread, everything else to its own."""

    def __init__(
        self,
        station: str,
        slot_file: SlotFile,
        open_candidate: Callable[[Slot, SlotFile], Engine],
        open_store: Callable[[], Store],
        settings: Callable[[], StationSettings],
        clock: Clock,
        boot_id: str,
        *,
        cpu_share: float,
        tell_every_s: float,
    ) -> None:
        """Prepare it.

        Args:
            station: whose windows.
            slot_file: where candidates are staged.
            open_candidate: opens a staged bundle in a child of low priority.
            open_store: opens a connection for this thread.
            settings: the station's settings now.
            clock: for the record.
            boot_id: of this start of the daemon.
            cpu_share: of one core, above 0 and at most 1.
            tell_every_s: how often counts go up.
        """
        self._station, self._slots = station, slot_file
        self._open, self._open_store = open_candidate, open_store
        self._settings, self._clock, self._boot_id = settings, clock, boot_id
        self._rest = 1.0 / cpu_share - 1.0
        self._tell_every_s = tell_every_s
        self._stop, self._wake = threading.Event(), threading.Event()
        self._box: tuple[_Look, DecisionRow] | None = None
        self._asked: _Look | None = None
        self._answered: _Look | None = None
        """The last look that the station has asked for: its decision comes next."""
        self._rested_s = 0.0
        """When the share of the core allows the next window that nobody waits for."""
        self._engine: Engine | None = None
        self._given_up: str | None = None
        self._failures = 0
        self._count = _Count()
        self._results: list[ShadowResult] = []
        self._sent_s: list[float] = []
        self._thread = threading.Thread(target=self._run, name=f"shadow-{station}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after the window it is on."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def offer(self, window: Window, decision: DecisionRow) -> None:
        """Hand over a window in passing; the newest one wins."""
        if self._engine is None or decision.label is None:
            return
        self._count.offered += 1
        look, self._answered = self._answered, None
        self._box = (look if look is not None and look.window is window else _Look(window)), decision
        self._wake.set()

    def ask(self, window: Window, wait_s: float) -> Judgement | None:
        """Return what the candidate says to a window; None if none runs, if it fails, or says nothing in time."""
        if self._engine is None or wait_s <= 0:
            return None
        self._asked = self._answered = look = _Look(window)
        self._wake.set()
        return look.judgement if look.done.wait(wait_s) else None

    @property
    def candidate(self) -> BundleRef | None:
        """The bundle that runs in the shadow now."""
        return self._engine.ref if self._engine else None

    def _run(self) -> None:
        with self._open_store() as store:
            looked_s = wrote_s = told_s = self._clock.monotonic_s() - LOOK_S
            while not self._stop.is_set():
                self._wake.wait(self._until_next_s())
                self._wake.clear()
                self._answer(store)
                if self._clock.monotonic_s() >= self._rested_s:
                    self._judge_one(store)
                now_s = self._clock.monotonic_s()
                if now_s - looked_s >= LOOK_S:
                    looked_s = now_s
                    self._settle(store)
                if now_s - wrote_s >= WRITE_EVERY_S:
                    wrote_s = now_s
                    self._write(store)
                if now_s - told_s >= self._tell_every_s:
                    told_s = now_s
                    self._tell_counts(store)
            self._write(store)
            self._tell_counts(store)
            self._close()

    def _settle(self, store: Store) -> None:
        """Run what is staged now, and nothing else."""
        staged = next((slot for slot in self._slots.book.slots if slot.state == "staged"), None)
        digest = staged.ref.digest if staged else None
        if self._engine is not None and self._engine.ref.digest != digest:
            self._write(store)
            self._tell_counts(store)
            self._close()
        if staged is None or self._engine is not None or digest == self._given_up:
            return
        self._failures, self._count = 0, _Count()
        try:
            self._engine = self._open(staged, self._slots)
        except LinesideError as error:
            self._give_up(store, staged.ref, f"cannot be opened: {error}")
            return
        self._event(store, "shadow_started", "info", f"{_words(staged.ref)} runs in the shadow", _ref(staged.ref))

    def _until_next_s(self) -> float:
        """Return how long there is nothing to do unless somebody asks."""
        if self._box is None:
            return LOOK_S / 4
        return min(LOOK_S / 4, max(0.0, self._rested_s - self._clock.monotonic_s()))

    def _answer(self, store: Store) -> None:
        """Judge the window that the station waits for."""
        look, self._asked = self._asked, None
        if look is None:
            return
        if self._engine is not None:
            self._judge(store, look, self._engine)
        look.done.set()

    def _judge_one(self, store: Store) -> None:
        taken, self._box = self._box, None
        engine = self._engine
        if taken is None or engine is None:
            return
        look, decision = taken
        if not look.done.is_set():
            self._judge(store, look, engine)
            self._rested_s = self._clock.monotonic_s() + look.took_s * self._rest
        if look.judgement is not None:
            self._keep(store, look, decision, look.judgement, engine.ref)

    def _judge(self, store: Store, look: _Look, engine: Engine) -> None:
        started_s = time.perf_counter()
        # It is never late, and what it would do with a part is not audited.
        work = Work(look.window, replace(self._settings(), deadline_ms=float("inf"), audit_share=0.0), engine)
        judgement = steps.judge(work)
        look.took_s = time.perf_counter() - started_s
        if work.engine_failure is None:
            self._failures = 0
            look.judgement, look.text = judgement, work.text
            return
        self._failures += 1
        self._count.kinds["failed"] += 1
        if self._failures >= MAX_FAILURES:
            self._give_up(store, engine.ref, work.engine_failure)

    def _keep(self, store: Store, look: _Look, decision: DecisionRow, judgement: Judgement, ref: BundleRef) -> None:
        kind = compare(decision, judgement, look.text)
        took_ms = look.took_s * 1000
        self._count.kinds[kind] += 1
        if len(self._count.latencies_ms) < MAX_LATENCIES:
            self._count.latencies_ms.append(took_ms)
        self._results.append(
            ShadowResult(
                decision_seq=decision.seq,
                digest=ref.digest,
                version=ref.version,
                verdict=judgement.verdict,
                label=judgement.label,
                confidence=judgement.confidence,
                scores=judgement.scores,
                latency_ms=took_ms,
                at_ms=self._clock.now_ms(),
            )
        )
        if kind != "agreed":
            self._disagree(store, look, decision, judgement, ref, kind)

    def _disagree(
        self, store: Store, look: _Look, decision: DecisionRow, judgement: Judgement, ref: BundleRef, kind: Kind
    ) -> None:
        now_s = self._clock.monotonic_s()
        self._sent_s = [at_s for at_s in self._sent_s if now_s - at_s < 3600]
        if len(self._sent_s) >= MAX_SENT_PER_H:
            return
        self._sent_s.append(now_s)
        data: dict[str, Any] = {
            **_ref(ref),
            "decision_seq": decision.seq,
            "kind": kind,
            "incumbent": {"verdict": decision.verdict, "label": decision.label, "confidence": decision.confidence},
            "candidate": {"verdict": judgement.verdict, "label": judgement.label, "confidence": judgement.confidence},
        }
        may_use = privacy.may_use(self._settings(), look.window)
        if look.text is not None and may_use:
            data["texts"] = {"incumbent": decision.text, "candidate": look.text}
        if may_use and self._settings().keep in ("deferred", "all"):
            data["input"] = _keep_input(store, look.window, decision)
        detail = f"{decision.input.name}: {decision.verdict} decides, {_words(ref)} would {judgement.verdict}"
        self._event(store, SHADOW_DISAGREED_EVENT, "info", detail, data)

    def _write(self, store: Store) -> None:
        results, self._results = self._results, []
        try:
            store.shadow.keep(results)
        except StoreError:
            # A full disk: decisions come first, and the counts still go up.
            self._count.kinds["unrecorded"] += len(results)

    def _tell_counts(self, store: Store) -> None:
        count, engine = self._count, self._engine
        if engine is None or not (count.offered or count.kinds):
            return
        self._count = _Count()
        judged = sum(count.kinds[kind] for kind in ("agreed", "opposite", "candidate_defers", "candidate_decides"))
        times = sorted(count.latencies_ms)
        data = {
            **_ref(engine.ref),
            "offered": count.offered,
            "judged": judged,
            **{kind: count.kinds[kind] for kind in sorted(count.kinds)},
            "latency_ms": {"p50": _quantile(times, 0.5), "p99": _quantile(times, 0.99)},
        }
        detail = f"{_words(engine.ref)}: {judged} of {count.offered} windows, {count.kinds['agreed']} agreed"
        self._event(store, "shadow_counted", "info", detail, data)

    def _give_up(self, store: Store, ref: BundleRef, reason: str) -> None:
        self._given_up = ref.digest
        self._close()
        self._event(store, "shadow_failed", "alarm", f"{_words(ref)} in the shadow: {reason}", _ref(ref))

    def _event(
        self, store: Store, name: str, severity: Literal["info", "alarm"], detail: str, data: dict[str, Any]
    ) -> None:
        try:
            store.append_event(
                name,
                boot_id=self._boot_id,
                severity=severity,
                station=self._station,
                model=data["bundle"]["name"],
                detail=detail,
                data=data,
            )
        except StoreError:
            # A full disk: the next counts tell again what is left.
            return

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.session.close()


def compare(decision: DecisionRow, judgement: Judgement, text: str | None = None) -> Kind:
    """Return how a candidate's judgement relates to the incumbent's decision on the same window.

    Two recognisers that both understood agree only if they understood the same words; `text` is the candidate's.
    """
    if decision.reason == "disagreement":
        return "opposite"  # it was asked before, and that is why it is a deferral
    if decision.verdict == "defer" or judgement.verdict == "defer":
        if decision.verdict == judgement.verdict:
            return "agreed"
        return "candidate_decides" if decision.verdict == "defer" else "candidate_defers"
    same_word = decision.verdict != "accept" or decision.label == judgement.label
    if decision.verdict == "accept" and decision.text is not None and text is not None:
        same_word = same_word and alike(decision.text, text)
    return "agreed" if decision.verdict == judgement.verdict and same_word else "opposite"


def _keep_input(store: Store, window: Window, decision: DecisionRow) -> str | None:
    """Keep what was looked at, unless its decision does already; return its digest, None without room for it."""
    if decision.input.kept:
        return decision.input.digest
    raw = window.raw or (window.encode() if window.encode else None)
    if not raw:
        return None
    digest = hashlib.sha256(raw).hexdigest()
    with contextlib.suppress(StoreError):
        if store.keep_input(digest, raw, window.media_type, station=decision.station):
            return digest
    return None


def open_staged(slot: Slot, slot_file: SlotFile, open_bundle: Callable[[Any], Engine]) -> Engine:
    """Open a staged bundle, checked against the digest that the slot names.

    Raises:
        LinesideError: it is damaged, or no runtime takes it.
    """
    return open_bundle(load(slot_file.bundle_path(slot.ref), expected_digest=slot.ref.digest))


def _words(ref: BundleRef) -> str:
    return f"{ref.name} {ref.version}"


def _ref(ref: BundleRef) -> dict[str, Any]:
    return {"bundle": ref.model_dump()}


def _quantile(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(len(values) * share))], 3) if values else None
