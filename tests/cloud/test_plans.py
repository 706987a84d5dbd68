"""Plans: readable files, sensible defaults, and mistakes that are named."""

from pathlib import Path

import pytest

import cloud
from cloud.errors import ConfigError
from cloud.plans import Cohort, Plan, PlanShape, Stage, parse_plan

DEMO = Path(cloud.__file__).parent / "demo_plan.toml"


def test_an_empty_file_gives_the_default_plan_with_all_its_stages() -> None:
    plan = parse_plan("")
    assert [stage.kind for stage in plan.stages] == ["shadow", "canary", "ramp", "ramp"]
    assert plan == PlanShape()
    assert plan.stages[1].gates[-1].metric == "wrong"


def test_blue_green_stages_everywhere_then_switches_all() -> None:
    plan = parse_plan('{"strategy": "blue_green"}')
    assert [stage.kind for stage in plan.stages] == ["shadow", "switch"]
    assert plan.stages[1].full


def test_the_plan_of_the_demonstration_can_be_read() -> None:
    plan = parse_plan(DEMO.read_text())
    assert [(stage.kind, stage.devices) for stage in plan.stages] == [("canary", 1), ("ramp", None)]


def test_a_plan_survives_json() -> None:
    plan = Plan.of(parse_plan(DEMO.read_text()), model="phone_glass", version="1.1.0", digest="a" * 64)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_errors_of_all_gates_add_up_to_that_of_the_plan() -> None:
    plan = PlanShape()
    total = sum(plan.fail_error(gate) for stage in plan.stages for gate in stage.gates)
    assert total == pytest.approx(plan.error)
    gates = {gate.metric: plan.fail_error(gate) for gate in plan.stages[1].gates}
    assert gates["wrong"] == pytest.approx(2 * gates["deferral"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("eror = 0.1", "eror"),
        ("error = 2", "error"),
        ("[[stages]]\nkind = 'canary'\nshare = 0.1", "last stage"),
        ("[[stages]]\nkind = 'ramp'", "share or devices"),
        ("[[stages]]\nkind = 'ramp'\nshare = 1.0\nmin_s = 10\nmax_s = 5", "min_s"),
        ("[[stages]]\nkind = 'switch'\ndevices = 2", "all devices at once"),
        ("[[stages]]\nkind = 'ramp'\nshare = 1.0\n[[stages]]\nkind = 'shadow'", "last stage"),
        ("strategy = 'blue_green'\n[[stages]]\nkind = 'ramp'\nshare = 1.0", "blue_green"),
        ("stages = [", "TOML"),
        ("{", "JSON"),
    ],
)
def test_a_mistake_in_a_plan_is_named(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_plan(text)


@pytest.mark.parametrize(
    ("stage", "cohort", "expected"),
    [
        (Stage(kind="canary", share=0.1), 1, 1),
        (Stage(kind="canary", share=0.1), 2, 1),
        (Stage(kind="canary", share=0.1), 29, 2),
        (Stage(kind="canary", share=0.3), 10, 3),
        (Stage(kind="canary", share=0.99), 3, 2),
        (Stage(kind="canary", devices=5), 3, 2),
        (Stage(kind="ramp", share=1.0), 3, 3),
        (Stage(kind="switch"), 7, 7),
        (Stage(kind="canary", share=0.5), 0, 0),
    ],
)
def test_a_share_is_rounded_down_but_one_takes_part_and_one_stays_behind(
    stage: Stage, cohort: int, expected: int
) -> None:
    assert stage.quota(cohort) == expected


def test_cohorts_overlap_unless_something_keeps_them_apart() -> None:
    assert Cohort().may_overlap(Cohort(sites=["a"]))
    assert Cohort(sites=["a"]).may_overlap(Cohort(profiles=["x"]))
    assert not Cohort(sites=["a"]).may_overlap(Cohort(sites=["b"]))
    assert not Cohort(devices=["box-1"]).may_overlap(Cohort(devices=["box-2"], sites=["a"]))
    assert Cohort(sites=["a"], profiles=["x"]).holds("box-1", "a", "x")
    assert not Cohort(sites=["a"], profiles=["x"]).holds("box-1", "a", "y")
