"""The pipeline: every way that a window can go, with a real store, real slots and a real network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.engines import Engine
from edge.errors import ModelError, SourceError, StoreError
from edge.observe import Observer
from edge.pipeline import Parts, Pipeline
from edge.store import Store
from edge.values import StationSettings, Window
from edge.wire.rows import DecisionRow, OutcomeRow
from tests.bundles import bundle
from tests.edge.test_serving import Bench
from tests.seams.fakes import FakeSession, RecordingActuator, ScriptedSource

SPEC = bundle().manifest.models["onnx"]


def picture(brightness: int, name: str = "part.png") -> Window:
    """A plain picture of one brightness, 0…255, as a folder would give it."""
    data = np.full((32, 32, 3), brightness, np.uint8)
    raw = cv2.imencode(".png", data)[1].tobytes()
    return Window(source="test", name=name, key=name, media_type="image/png", data=data, raw=raw)


def unreadable(problem: str) -> Window:
    return Window("test", "bad.jpg", "bad.jpg", "image/jpeg", None, b"rubbish", problem=problem)


BRIGHT, DARK, BETWEEN = picture(250), picture(5), picture(128)


class Line:
    """A station on the bench."""

    def __init__(self, folder: Path, windows: Sequence[Window], **settings: Any) -> None:
        self.bench = Bench(folder)
        self.bench.begin()
        self.clock = self.bench.clock
        self.store = Store.open(folder / "lineside.sqlite", clock=self.clock, durability="process")
        self.actuator = RecordingActuator()
        self.settings = StationSettings(station="main", **settings)
        self.observer = Observer("main", "brightness", self.store, self.clock, "boot", 60.0)
        self.parts = Parts(
            source=ScriptedSource(windows),
            serving=self.bench.serving,
            actuator=self.actuator,
            store=self.store,
            observer=self.observer,
            settings=lambda: self.settings,
            clock=self.clock,
            boot_id="boot",
            draw=lambda: 0.5,
        )
        self.pipeline = Pipeline(self.parts)

    def decide(self) -> DecisionRow:
        decision = self.pipeline.run_once()
        assert decision is not None
        return decision

    def serve(self, session: FakeSession) -> None:
        """Let a scripted network decide instead of the real one."""
        real = self.bench.serving.current()
        assert real is not None
        self.bench.serving.offer(Engine(real.bundle, real.spec, session))
        assert self.bench.serving.current() is not None

    def events(self) -> list[str]:
        return [row.name for row in self.store.rows(kind="event")]  # type: ignore[union-attr]


@pytest.fixture
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    line = Line(tmp_path, [BRIGHT, DARK, BETWEEN])
    yield line
    line.bench.serving.close()
    line.store.close()


def make(tmp_path: Path, windows: Sequence[Window], **settings: Any) -> Line:
    return Line(tmp_path, windows, **settings)


def test_sure_windows_are_decided_and_acted_on(line: Line) -> None:
    good, bad = line.decide(), line.decide()
    assert (good.verdict, good.action, good.label, good.reason) == ("pass", "pass", "good", None)
    assert (bad.verdict, bad.action, bad.label) == ("divert", "divert", "scratch")
    assert [d.seq for d in line.actuator.acted] == [good.seq, bad.seq]


def test_unsure_window_is_handed_over_with_its_picture(line: Line) -> None:
    decisions = [line.decide() for _ in range(3)]
    unsure = decisions[2]
    assert (unsure.verdict, unsure.action, unsure.reason) == ("defer", "hand_over", "unsure")
    assert unsure.input.kept
    assert line.store.inputs.get(unsure.input.digest) == (BETWEEN.raw, "image/png")
    assert line.store.inputs.get(decisions[0].input.digest) is None, "sure ones are not kept"


def test_record_explains_the_decision(line: Line) -> None:
    decision = line.decide()
    assert decision.bundle is not None and decision.bundle.version == "1.0.0"
    assert decision.policy == {"pass_max": 0.05, "divert_min": 0.95}
    assert set(decision.scores) == {"good", "scratch"}
    assert sum(decision.scores.values()) == pytest.approx(1)
    assert {"gate", "preprocess", "infer", "calibrate", "decide", "total"} <= set(decision.latency_ms)
    assert {"brightness", "sharpness"} <= set(decision.metrics)
    assert line.store.decision(decision.seq) == decision


def test_decision_is_on_disk_before_the_actuator_moves(line: Line) -> None:
    seen: list[bool] = []
    act = line.actuator.act

    def look_then_act(decision: DecisionRow) -> str | None:
        assert decision.bundle is not None
        record = line.bench.slot_file.bundle_path(decision.bundle).parents[1] / "lineside.sqlite"
        with Store.open_read_only(record, clock=line.clock) as other:
            seen.append(other.decision(decision.seq) is not None)
        return act(decision)

    line.actuator.act = look_then_act  # type: ignore[method-assign]
    line.decide()
    assert seen == [True]


def outcomes(line: Line) -> list[tuple[int, int, str]]:
    return [(row.seq, row.decision_seq, row.state) for row in line.store.rows(kind="outcome")]  # type: ignore[union-attr]


def test_outcome_is_recorded_with_the_next_decision_or_at_once_if_none_is_due(line: Line) -> None:
    first, second, third = (line.decide() for _ in range(3))
    assert (first.seq, second.seq, third.seq) == (1, 3, 5)
    assert outcomes(line) == [(2, 1, "done"), (4, 3, "done")]
    assert line.store.pending_actions() == [third.seq]
    assert line.pipeline.run_once() is None
    assert outcomes(line)[2:] == [(6, 5, "done")] and line.store.pending_actions() == []


def test_outcome_that_is_owed_when_a_station_ends_or_loses_its_source_is_recorded(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT])
    line.decide()
    line.pipeline.finish()
    assert outcomes(line) == [(2, 1, "done")]
    line.parts = dataclasses.replace(line.parts, source=ScriptedSource([DARK, SourceError("unplugged")]))
    line.pipeline = Pipeline(line.parts)
    line.decide()
    with pytest.raises(SourceError):
        line.pipeline.run_once()
    assert [state for _, _, state in outcomes(line)] == ["done", "done"]


def test_refusing_actuator_is_recorded_as_failed(line: Line) -> None:
    line.actuator.failing = "valve does not answer"
    line.decide()
    (outcome,) = line.store.rows(kind="outcome")
    assert isinstance(outcome, OutcomeRow) and outcome.state == "failed"
    assert outcome.detail == "valve does not answer; the safe action failed too: valve does not answer"


def test_unreadable_input_is_recorded_and_deferred(tmp_path: Path) -> None:
    line = make(tmp_path, [unreadable("cut short"), BRIGHT])
    decision = line.decide()
    assert (decision.verdict, decision.reason, decision.detail) == ("defer", "bad_input", "cut short")
    assert line.decide().verdict == "pass", "the line goes on"


def test_window_without_any_bundle_is_deferred(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT])
    line.bench.slot_file.change(lambda book, now: dataclasses.replace(book, slots=(), current=None))
    decision = line.decide()
    assert (decision.verdict, decision.reason) == ("defer", "model_error")
    assert decision.bundle is None


def test_failing_network_defers_and_is_opened_again(line: Line) -> None:
    line.serve(FakeSession(SPEC, [ModelError("the child died by SIGSEGV")]))
    decision = line.decide()
    assert (decision.verdict, decision.reason) == ("defer", "model_error")
    assert "SIGSEGV" in (decision.detail or "")
    assert line.decide().verdict == "divert", "a new session of the real network decides"


def test_answer_that_is_not_a_number_defers(line: Line) -> None:
    line.serve(FakeSession(SPEC, [np.array([np.nan, 1.0], np.float32)]))
    decision = line.decide()
    assert (decision.verdict, decision.reason) == ("defer", "model_error")


def test_late_answer_is_not_acted_on(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT], deadline_ms=5.0)
    line.serve(FakeSession(SPEC, [np.array([9.0, -9.0], np.float32)], latency_s=0.02))
    decision = line.decide()
    assert (decision.verdict, decision.reason, decision.action) == ("defer", "deadline", "hand_over")


def test_budget_of_deferrals_ends_in_the_safe_action_and_comes_back(tmp_path: Path) -> None:
    line = make(tmp_path, [BETWEEN] * 5, defer_budget_per_h=2)
    assert [line.decide().action for _ in range(3)] == ["hand_over", "hand_over", "safe"]
    line.clock.forward(3601)
    assert line.decide().action == "hand_over"


@pytest.mark.parametrize("mode", ["human", "shadow", "assist"])
def test_where_a_person_decides_nothing_moves(tmp_path: Path, mode: Any) -> None:
    line = make(tmp_path, [BRIGHT, BETWEEN], mode=mode)
    assert [(d.verdict, d.action) for d in (line.decide(), line.decide())] == [("pass", "none"), ("defer", "none")]
    assert line.actuator.acted == []
    assert line.store.rows(kind="outcome") == []


def test_full_automation_decides_what_it_is_unsure_of(tmp_path: Path) -> None:
    line = make(tmp_path, [BETWEEN, unreadable("cut short")], mode="full")
    assert line.decide().verdict in ("pass", "divert")
    assert line.decide().verdict == "defer", "what cannot be judged is never decided"


def test_mode_changes_at_the_next_window(line: Line) -> None:
    assert line.decide().action == "pass"
    line.settings = dataclasses.replace(line.settings, mode="assist")
    assert line.decide().action == "none"


def test_audit_marks_and_does_not_change_the_action(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT], audit_share=0.6)
    decision = line.decide()
    assert (decision.verdict, decision.action, decision.reason) == ("pass", "pass", "audit")
    assert decision.audit_probability == 0.6
    assert decision.input.kept


class FullStore:
    """A store whose disk is full while told so; everything else is the real one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.full = False

    def __getattr__(self, name: str) -> Any:
        if self.full and name.startswith("append"):

            def refuse(*_: Any, **__: Any) -> Any:
                raise StoreError("database or disk is full")

            return refuse
        return getattr(self._store, name)


def test_decision_without_room_takes_the_safe_action_and_is_told_later(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT, BRIGHT, DARK, BRIGHT])
    store = FullStore(line.store)
    line.pipeline = Pipeline(dataclasses.replace(line.parts, store=store))
    store.full = True
    assert line.pipeline.run_once() is None
    assert line.pipeline.run_once() is None
    assert (len(line.actuator.safe_for), line.pipeline.unrecorded) == (2, 2)
    assert line.actuator.acted == []
    store.full = False
    assert line.decide().verdict == "divert"
    told = [row for row in line.store.rows(kind="event") if row.name == "decisions_unrecorded"]  # type: ignore[union-attr]
    assert [row.data["count"] for row in told] == [2]  # type: ignore[union-attr]
    assert line.pipeline.unrecorded == 0


def test_nothing_to_read_records_nothing(tmp_path: Path) -> None:
    line = make(tmp_path, [])
    assert line.pipeline.run_once() is None
    assert line.store.rows() == []


def test_telemetry_of_a_window_adds_up(tmp_path: Path) -> None:
    line = make(tmp_path, [BRIGHT, DARK, BETWEEN, BRIGHT])
    for _ in range(3):
        line.decide()
    line.clock.forward(61)
    line.decide()
    (row,) = line.store.rows(kind="telemetry")
    assert row.counts["decisions"] == 4  # type: ignore[union-attr]
    assert row.counts["verdict.pass"] == 2  # type: ignore[union-attr]
    assert row.histograms["latency_ms.total"].total == 4  # type: ignore[union-attr]
