"""What the pipeline makes of live inputs: files only of what is kept, waiting that counts, answers, a last round."""

import dataclasses
import hashlib
import threading
from pathlib import Path

import numpy as np

from edge.errors import StoreError
from edge.imaging import decode, encode_png
from edge.pipeline import Pipeline
from edge.sources.interface import News
from edge.sources.reopening import ReopeningSource
from edge.values import Window
from edge.wire.rows import DecisionRow
from tests.clocks import HeldClock
from tests.edge.test_pipeline import FullStore, make
from tests.seams.fakes import ScriptedSource


class Frame:
    """A live frame that notes how often a file was made of it."""

    def __init__(self, brightness: int) -> None:
        self.data = np.full((32, 32, 3), brightness, np.uint8)
        self.encoded = 0

    def encode(self) -> bytes:
        self.encoded += 1
        return encode_png(self.data)

    def window(self, problem: str | None = None, waited_ms: float = 0.0) -> Window:
        data = None if problem else self.data
        return Window("camera", "#1", "1", "image/png", data, problem=problem, waited_ms=waited_ms, encode=self.encode)


def test_frame_whose_decision_is_not_kept_is_never_encoded(tmp_path: Path) -> None:
    frame = Frame(250)
    decision = make(tmp_path, [frame.window()]).decide()
    assert (decision.verdict, decision.input.kept, frame.encoded) == ("pass", False, 0)
    assert decision.input.digest == hashlib.sha256(frame.data.tobytes()).hexdigest()
    assert decision.input.size_bytes == frame.data.nbytes


def test_live_input_takes_no_place_among_the_inputs_that_were_decided(tmp_path: Path) -> None:
    once = dataclasses.replace(Frame(250).window(), key="once", live=True)
    line = make(tmp_path, [once, dataclasses.replace(once, key="file", live=False)])
    line.decide(), line.decide()
    assert [line.store.seen("main", key) for key in ("once", "file")] == [False, True]


def test_frame_that_is_kept_is_a_file_under_its_own_digest_with_the_same_pixels(tmp_path: Path) -> None:
    frame = Frame(128)
    line = make(tmp_path, [frame.window()])
    decision = line.decide()
    assert (decision.verdict, decision.input.kept, frame.encoded) == ("defer", True, 1)
    kept = line.store.inputs.get(decision.input.digest)
    assert kept is not None and kept[1] == decision.input.media_type == "image/png"
    assert hashlib.sha256(kept[0]).hexdigest() == decision.input.digest
    assert decision.input.size_bytes == len(kept[0])
    assert np.array_equal(decode(kept[0])[0], frame.data)


def test_frame_with_a_problem_is_kept_for_people(tmp_path: Path) -> None:
    line = make(tmp_path, [Frame(1).window("black: brightness 0.004 is below 0.020")])
    decision = line.decide()
    assert (decision.reason, decision.input.kept) == ("bad_input", True)
    assert (decision.detail or "").startswith("black")


def test_waiting_counts_towards_the_deadline_and_is_on_record(tmp_path: Path) -> None:
    line = make(tmp_path, [Frame(250).window(waited_ms=700), Frame(250).window(waited_ms=400)], deadline_ms=600)
    late, early = line.decide(), line.decide()
    assert (late.reason, early.reason, early.verdict) == ("deadline", None, "pass")
    assert early.latency_ms["wait"] == 400 and early.latency_ms["total"] > 400


def test_whoever_waits_gets_the_decision_before_the_actuator_moves(tmp_path: Path) -> None:
    answers: list[DecisionRow | None] = []
    line = make(tmp_path, [])
    window = dataclasses.replace(Frame(250).window(), answer=answers.append)
    line.actuator.act = lambda decision: str(len(answers))  # type: ignore[method-assign]
    line.pipeline = Pipeline(dataclasses.replace(line.parts, source=ScriptedSource([window])))
    decision = line.decide()
    assert answers == [decision]
    line.pipeline.finish()
    (outcome,) = line.store.rows(kind="outcome")
    assert outcome.detail == "1"  # type: ignore[union-attr]


def test_whoever_waits_is_told_when_nothing_could_be_recorded(tmp_path: Path) -> None:
    answers: list[DecisionRow | None] = []
    line = make(tmp_path, [])
    store = FullStore(line.store)
    store.full = True
    window = dataclasses.replace(Frame(250).window(), answer=answers.append)
    source = ScriptedSource([window])
    Pipeline(dataclasses.replace(line.parts, store=store, source=source)).run_once()
    assert answers == [None]


def test_what_a_source_still_holds_is_decided_in_the_last_round(tmp_path: Path) -> None:
    line = make(tmp_path, [Frame(250).window(), Frame(5).window()])
    line.pipeline.run_out(5.0, threading.Event())
    assert [row.verdict for row in line.store.last_decisions(5)] == ["divert", "pass"]


def test_last_round_without_room_ends(tmp_path: Path) -> None:
    line = make(tmp_path, [Frame(250).window()] * 2 + [None] * 3)  # type: ignore[list-item]
    store = FullStore(line.store)
    line.pipeline = Pipeline(dataclasses.replace(line.parts, store=store))
    store.full = True
    line.clock.forward(61)  # telemetry is due, and finds no room
    try:
        line.pipeline.run_out(5.0, threading.Event())
    except StoreError as error:
        raise AssertionError("the last round must end in order") from error


class Telling(ScriptedSource):
    """A source that is open while what it reads from is away."""

    problem: str | None = None

    def news(self) -> list[News]:
        return [News("frames_skipped", "3 frames", data={"count": 3})] if self.problem is None else []


def test_state_and_news_of_a_source_that_stays_open_are_told_once() -> None:
    inner, told, news = Telling([None] * 9), [], []  # type: ignore[var-annotated]

    def tell(problem: str | None) -> None:
        told.append(problem)

    source = ReopeningSource("telling", lambda: inner, HeldClock(), tell, news.append)
    source.read(0)
    assert (told, len(news)) == ([], 1)
    for problem in ("unplugged: a", "unplugged: b", None):
        inner.problem = problem
        source.read(0)
        source.read(0)
        assert source.problem == problem
    assert told == ["unplugged: a", None] and len(news) == 3
