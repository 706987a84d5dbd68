"""A staged candidate in the shadow: real children, a real record, and an incumbent that never waits."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge import slots
from edge.bundle import parse
from edge.clock import SystemClock
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import ModelError
from edge.pipeline import Pipeline
from edge.shadow import MAX_FAILURES, MAX_SENT_PER_H, Shadow, compare, open_staged
from edge.slotfile import SlotFile
from edge.store import Store
from edge.values import Judgement, StationSettings, Window
from edge.wire.base import BundleRef
from edge.wire.rows import DecisionRow, EventRow
from tests.bundles import Kind, bundle_bytes
from tests.edge.test_pipeline import BRIGHT, DARK, SPEC, Line, picture
from tests.rows import decision
from tests.seams.fakes import FakeSession
from tests.waiting import wait_until


class Bench:
    """A shadow with its record and slots."""

    def __init__(self, folder: Path, share: float = 1.0, **changes: Any) -> None:
        self.clock = SystemClock()
        self.slot_file = SlotFile(folder, "brightness", self.clock)
        self.store = Store.open(folder / "record.db", clock=self.clock, durability="process")
        self.session: FakeSession | None = None
        self.settings = StationSettings(station="main", **changes)
        self.shadow = Shadow(
            "main",
            self.slot_file,
            self._open,
            lambda: Store.open(folder / "record.db", clock=self.clock, durability="process"),
            lambda: self.settings,
            self.clock,
            "boot",
            cpu_share=share,
            tell_every_s=0.0,
        )
        self.seq = 0

    def _open(self, slot: slots.Slot, book: SlotFile) -> Engine:
        settings = EngineSettings(isolation="process", nice=19)
        engine = open_staged(slot, book, lambda made: open_engine(made, settings))
        if self.session is None:
            return engine
        engine.session.close()
        return Engine(engine.bundle, engine.spec, self.session)

    def stage(self, version: str, kind: Kind = "brightness") -> BundleRef:
        content = bundle_bytes(version, kind=kind)
        ref = parse(content).ref
        self.slot_file.bundle_path(ref).parent.mkdir(parents=True, exist_ok=True)
        self.slot_file.bundle_path(ref).write_bytes(content)
        self.slot_file.change(lambda book, now: slots.downloaded(book, ref, now))
        return ref

    def run(self, version: str, kind: Kind = "brightness") -> None:
        ref = self.stage(version, kind)
        self.shadow.start()
        wait_until(lambda: self.shadow.candidate == ref, 20, "the candidate to run in the shadow")

    def decide(self, window: Window, verdict: str) -> DecisionRow:
        """Record the incumbent's decision and offer it."""
        made = decision(window.name, raw=window.raw or b"", verdict=verdict)
        row = self.store.append_decision(made, input_key=None)
        self.shadow.offer(window, row)
        return row

    def judged(self) -> int:
        return sum(event.data.get("judged", 0) for event in self.events("shadow_counted"))

    def events(self, name: str) -> list[EventRow]:
        rows = self.store.rows(kind="event", limit=10_000)
        return [row for row in rows if isinstance(row, EventRow) and row.name == name]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.shadow.stop(20)
    made.store.close()


def test_both_results_stand_in_the_record_and_counts_go_up(bench: Bench) -> None:
    bench.run("1.1.0")
    first = bench.decide(BRIGHT, "pass")
    wait_until(lambda: bench.judged() == 1, 20, "the counts of one window")
    bench.shadow.stop(20)
    (result,) = bench.store.shadow.last(10)
    assert (result.decision_seq, result.version, result.verdict) == (first.seq, "1.1.0", "pass")
    assert result.scores["good"] > 0.95 and result.latency_ms > 0
    counted = bench.events("shadow_counted")
    assert [sum(event.data.get(name, 0) for event in counted) for name in ("offered", "agreed")] == [1, 1]
    assert bench.events("shadow_disagreed") == []


def test_disagreement_goes_up_with_its_picture(bench: Bench) -> None:
    bench.run("1.1.0", "inverted")
    row = bench.decide(BRIGHT, "pass")
    wait_until(lambda: bench.events("shadow_disagreed"), 20, "the disagreement")
    wait_until(lambda: bench.store.inputs.waiting() == 1, 20, "its picture to wait for sending")
    (event,) = bench.events("shadow_disagreed")
    assert event.data["decision_seq"] == row.seq and event.data["kind"] == "opposite"
    assert event.data["candidate"]["verdict"] == "divert"
    assert bench.store.inputs.get(row.input.digest) == (BRIGHT.raw, BRIGHT.media_type)


def test_station_that_keeps_nothing_sends_no_picture(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep="none")
    bench.run("1.1.0", "inverted")
    bench.decide(BRIGHT, "pass")
    wait_until(lambda: bench.events("shadow_disagreed"), 20, "the disagreement")
    bench.shadow.stop(20)
    assert bench.store.inputs.waiting() == 0
    bench.store.close()


def test_pictures_of_disagreements_are_bounded_and_all_are_counted(bench: Bench) -> None:
    bench.run("1.1.0", "inverted")
    total = MAX_SENT_PER_H + 5
    for number in range(1, total + 1):
        bench.decide(picture(250, f"{number}.png"), "pass")
        wait_until(lambda number=number: bench.judged() == number, 20, f"window {number}")  # type: ignore[misc]
    assert len(bench.events("shadow_disagreed")) == MAX_SENT_PER_H
    assert sum(event.data.get("opposite", 0) for event in bench.events("shadow_counted")) == total


def test_candidate_that_fails_is_shut_off_and_told_and_the_incumbent_goes_on(bench: Bench) -> None:
    bench.session = FakeSession(SPEC, [ModelError("crashed with signal 11")])
    bench.run("1.1.0")
    for number in range(MAX_FAILURES):
        bench.decide(DARK, "divert")
        wait_until(lambda: bench.session is not None and bench.session.calls > number, 20, "a failure")  # noqa: B023
    wait_until(lambda: bench.events("shadow_failed"), 20, "the alarm")
    assert bench.shadow.candidate is None
    assert bench.slot_file.book.slots[0].state == "staged"


def test_candidate_that_is_damaged_on_disk_is_told_once(bench: Bench) -> None:
    ref = bench.stage("1.1.0")
    bench.slot_file.bundle_path(ref).write_bytes(b"rubbish")
    bench.shadow.start()
    wait_until(lambda: bench.events("shadow_failed"), 20, "the alarm")
    bench.shadow.stop(20)
    assert len(bench.events("shadow_failed")) == 1


def test_candidate_that_is_put_in_service_leaves_the_shadow(bench: Bench) -> None:
    bench.run("1.1.0")
    ref = bench.shadow.candidate
    assert ref is not None
    bench.slot_file.change(lambda book, now: slots.activated(book, ref, now))
    wait_until(lambda: bench.shadow.candidate is None, 20, "the shadow to be empty")


def test_offering_never_waits_even_when_the_candidate_hangs(bench: Bench) -> None:
    gate = threading.Event()
    bench.session = FakeSession(SPEC, lambda _tensor: np.array([8.0 * gate.wait(20), -8.0], np.float32))
    bench.run("1.1.0")
    row = bench.store.append_decision(decision("a"), input_key=None)
    for _ in range(10_000):
        bench.shadow.offer(BRIGHT, row)
    gate.set()
    wait_until(lambda: bench.events("shadow_counted"), 20, "the counts")
    counted = bench.events("shadow_counted")[0].data
    assert counted["offered"] >= 10_000 > 10 > counted["judged"]


def test_candidate_that_is_asked_answers_and_judges_the_window_once(bench: Bench) -> None:
    assert bench.shadow.ask(BRIGHT, 1.0) is None, "none runs"
    bench.session = FakeSession(SPEC, [np.array([-8.0, 8.0], np.float32)])
    bench.run("1.1.0")
    answer = bench.shadow.ask(BRIGHT, 20)
    assert answer is not None and answer.verdict == "divert"
    bench.shadow.offer(BRIGHT, decision(BRIGHT.name, verdict="defer", reason="disagreement"))
    wait_until(lambda: bench.judged() == 1, 20, "the counts")
    assert sum(event.data.get("opposite", 0) for event in bench.events("shadow_counted")) == 1
    assert bench.session.calls == 1


def test_candidate_that_is_asked_and_hangs_holds_the_station_up_no_longer_than_it_will_wait(bench: Bench) -> None:
    gate = threading.Event()
    bench.session = FakeSession(SPEC, lambda _tensor: np.array([8.0 * gate.wait(20), -8.0], np.float32))
    bench.run("1.1.0")
    began_s = time.monotonic()
    assert bench.shadow.ask(BRIGHT, 0.05) is None
    assert time.monotonic() - began_s < 5
    gate.set()


def test_candidate_that_is_asked_rests_from_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, share=0.001)
    bench.run("1.1.0")
    bench.decide(DARK, "divert")
    wait_until(lambda: bench.judged() == 1, 20, "a window that nobody waits for, and a long rest after it")
    assert bench.shadow.ask(BRIGHT, 20) is not None
    bench.shadow.stop(20)
    bench.store.close()


@pytest.mark.parametrize(
    ("incumbent", "candidate", "kind"),
    [
        ("pass", "pass", "agreed"),
        ("defer", "defer", "agreed"),
        ("pass", "divert", "opposite"),
        ("divert", "pass", "opposite"),
        ("pass", "defer", "candidate_defers"),
        ("defer", "divert", "candidate_decides"),
    ],
)
def test_kinds_of_disagreement(incumbent: str, candidate: Any, kind: str) -> None:
    row = decision("a", verdict=incumbent)
    assert compare(row, Judgement(candidate, "none", None, None, "good", 0.9, {}, 0.0)) == kind


@pytest.mark.parametrize(("kind", "expected"), [("inverted", "defer"), ("brightness", "pass")])
def test_sure_decision_that_the_candidate_contradicts_goes_to_a_person_if_wanted(
    tmp_path: Path, kind: Kind, expected: str
) -> None:
    bench = Bench(tmp_path)
    bench.run("1.1.0", kind)
    line = Line(tmp_path / "line", [BRIGHT, BRIGHT], on_disagreement="defer", deadline_ms=20_000)
    line.pipeline = Pipeline(dataclasses.replace(line.parts, shadow=bench.shadow))
    decided = line.decide()
    assert (decided.verdict, decided.reason) == (expected, "disagreement" if expected == "defer" else None)
    assert decided.latency_ms["second_opinion"] > 0
    if expected == "defer":
        assert decided.action == "hand_over" and decided.input.kept
        assert decided.detail == "pass good, but divert scratch by the candidate"
    line.settings = dataclasses.replace(line.settings, on_disagreement=None)
    assert "second_opinion" not in line.decide().latency_ms, "the bundle's policy does not want it"
    bench.shadow.stop(20)
    bench.store.close()
    line.bench.serving.close()
    line.store.close()


def test_another_word_is_the_opposite() -> None:
    row = decision("a", verdict="accept", label="one")
    assert compare(row, Judgement("accept", "none", None, None, "two", 0.9, {}, 0.0)) == "opposite"
    assert compare(row, Judgement("accept", "none", None, None, "one", 0.9, {}, 0.0)) == "agreed"


@pytest.mark.parametrize(
    ("text", "kind"), [("He was not.", "agreed"), ("he was knot", "opposite"), ("", "opposite"), (None, "agreed")]
)
def test_other_words_than_the_incumbent_understood_are_the_opposite(text: str | None, kind: str) -> None:
    row = decision("a", verdict="accept", label="understood", text="he was not")
    assert compare(row, Judgement("accept", "none", None, None, "understood", 0.9, {}, 0.0), text) == kind
