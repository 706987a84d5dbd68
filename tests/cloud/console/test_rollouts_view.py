"""Rollouts with their evidence."""

from pathlib import Path

import pytest
from sqlalchemy import select

from cloud import tables
from cloud.console.views import rollouts
from cloud.console.views.rollouts import RolloutPage
from cloud.console.views.switching import Moved, went_back
from cloud.rollout_state import RolloutState
from tests.browser.sample_data import SampleClock
from tests.browser.sample_rollouts import CUT_SHORT, add_rollout
from tests.browser.sample_watch import add_switch
from tests.cloud.console.plant import Plant, ref

FAILING = {"deferral": ((26, 63), (9, 121)), "errors": ((0, 63), (0, 121))}
WAITING = {
    "deferral": ((0, 900), (1, 900)),
    "errors": ((0, 900), (0, 900)),
    "deadline": ((0, 900), (0, 900)),
    "wrong": ((0, 6), (1, 5)),
}


def _page(plant: Plant, rollout: str) -> RolloutPage:
    with plant.services.store.read() as connection:
        page = rollouts.rollout_page(connection, rollout)
    assert page is not None
    return page


def test_failing_gate_lies_beyond_its_tolerance_and_the_stage_is_marked(plant: Plant) -> None:
    name = add_rollout(plant, "phone_glass", "1.2.0", "rolled_back", 1, plant.clock.now_ms(), FAILING, "deferral fails")
    page = _page(plant, name)
    gate = next(gate for gate in page.gates if gate.verdict == "fail")
    assert gate.name == "Deferred"
    assert gate.interval is not None and gate.tolerance_x is not None
    assert gate.interval.low > gate.tolerance_x
    assert [step.state for step in page.line.stages] == ["passed", "failed", "ahead", "ahead"]
    assert (page.is_open, page.line.why, page.line.missing) == (False, "deferral fails", "")
    assert [(arm.role, [m.device for m in arm.members]) for arm in page.arms] == [
        ("candidate", ["box-1"]),
        ("control", ["box-2"]),
        ("refused", ["box-3"]),
    ]
    assert page.arms[2].members[0].why == CUT_SHORT


def test_gate_that_was_not_judged_yet_is_shown_with_what_it_asks(plant: Plant) -> None:
    name = add_rollout(plant, "phone_glass", "1.1.0", "running", 1, plant.clock.now_ms(), {}, "")
    page = _page(plant, name)
    assert {gate.verdict for gate in page.gates} == {"not_judged"}
    assert page.gates[0].asks == "less than 5 points worse"
    assert page.line.missing == "no evidence yet"


def test_running_rollout_says_which_evidence_is_missing(plant: Plant) -> None:
    name = add_rollout(plant, "phone_glass", "1.1.0", "running", 1, plant.clock.now_ms(), WAITING, "")
    page = _page(plant, name)
    verdicts = {gate.name: gate.verdict for gate in page.gates}
    assert verdicts["Deferred"] == "pass"
    assert verdicts["Wrong, by review"] == "need_more"
    assert page.line.missing.startswith("Wrong, by review still open: about ")
    assert "more cases" in page.line.missing


def test_rollout_that_is_done_has_passed_every_stage(plant: Plant) -> None:
    name = add_rollout(plant, "phone_glass", "1.1.0", "done", 3, plant.clock.now_ms(), {}, "every device runs it")
    page = _page(plant, name)
    assert {step.state for step in page.line.stages} == {"passed"}
    assert page.line.previous == "1.0.0"


def test_open_rollouts_stand_before_ended_ones(plant: Plant) -> None:
    now_ms = plant.clock.now_ms()
    add_rollout(plant, "spoken_digits", "1.1.0", "paused", 1, now_ms - 9000, {}, "held by ada")
    add_rollout(plant, "phone_glass", "1.1.0", "done", 3, now_ms, {}, "done")
    with plant.services.store.read() as connection:
        assert [line.status for line in rollouts.all_rollouts(connection)] == ["paused", "done"]
        assert [line.model for line in rollouts.open_rollouts(connection)] == ["spoken_digits"]
        assert rollouts.rollout_page(connection, "nothing") is None


@pytest.mark.parametrize(("key", "name"), [("latency_over_50_ms", "Too slow"), ("brand_new", "brand new")])
def test_gate_has_a_name_for_people_even_where_it_is_new(key: str, name: str) -> None:
    assert rollouts.gate_name(key) == name


def test_switch_of_all_at_once_shows_how_far_apart_devices_were_and_how_soon_they_were_back(tmp_path: Path) -> None:
    plant = Plant(tmp_path, SampleClock(1_800_000_000_000))
    rollout = add_switch(plant, taken_back=True)
    plant.enrol("stranger")
    moved = {"bundle": ref("gearwheel", "2.0.0").model_dump(), "before": None}
    plant.up("stranger", [plant.event("stranger", "bundle_swapped", data=moved)])  # no member of it
    page = _page(plant, rollout)
    assert page.switched == Moved(6, 1_800_000_000_000 - 59_600, 0.365, 2.1, None)
    assert page.went_back is not None
    assert (page.went_back.devices, page.went_back.spread_s, page.went_back.after_s) == (6, 2.5, 3.4)
    assert {arm.words for arm in page.arms} == {"had the new version, and are back on what they had before"}
    plant.close()


def test_device_that_says_late_that_its_trial_ended_counts_as_back_and_one_that_said_nothing_does_not(
    tmp_path: Path,
) -> None:
    plant = Plant(tmp_path, SampleClock(1_800_000_000_000))
    rollout = add_switch(plant, taken_back=False)
    with plant.services.store.write() as connection:
        line = {"rollout": rollout, "at_ms": 1_800_000_000_000, "step": "aborted", "reason": "by ada", "data": {}}
        connection.execute(tables.rollout_log.insert().values(**line))
        state = RolloutState.model_validate(connection.execute(select(tables.rollouts.c.state)).scalar_one())
        assert went_back(connection, state) is None
    plant.clock.at(1_800_000_004_000)  # type: ignore[attr-defined]
    returned = {"bundle": ref("gearwheel", "1.0.0").model_dump()}
    plant.up("gear-2", [plant.event("gear-2", "bundle_returned", "warning", data=returned)])
    with plant.services.store.read() as connection:
        found = went_back(connection, state)
    assert found is not None
    assert (found.devices, found.after_s) == (1, 4.0)
    plant.close()
