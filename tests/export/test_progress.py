"""The time left: by the pace of what was done here, and never by what an earlier run had left behind."""

import pytest

from export.progress import Pace, Stages
from tests.clocks import HeldClock


def test_half_done_at_the_pace_of_the_weights_leaves_the_other_half() -> None:
    pace = Pace(200.0)
    pace.reach(100.0, 100.0)
    assert pace.left_s() == pytest.approx(100.0)


def test_machine_of_half_the_speed_takes_twice_as_long() -> None:
    pace = Pace(1000.0)
    pace.reach(500.0, 1000.0)
    assert pace.left_s() == pytest.approx(1000.0, rel=0.02)


def test_what_was_found_done_says_nothing_about_the_pace() -> None:
    pace = Pace(1000.0)
    pace.reach(500.0, 0.5)
    assert pace.left_s() == pytest.approx(500.0)
    pace.reach(600.0, 200.0)
    assert pace.left_s() == pytest.approx(800.0, rel=0.06)


def test_stage_that_goes_on_says_the_time_of_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    clock = HeldClock()
    with Stages({"copies": 100.0, "training": 300.0}, clock=clock.monotonic_s) as stages:
        with stages.stage("copies") as step:
            step(100, 100)  # all of it was on disk
        with stages.stage("training") as step:
            clock.forward(20.0)
            step(20, 300)
    said = [line for line in capsys.readouterr().err.splitlines() if "%" in line]
    assert said[0] == "copies: 100%, 5 min left"
    assert said[1] == "training: 7%, 5 min left"
