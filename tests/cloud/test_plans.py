"""Plans: readable files, sensible defaults, and mistakes that are named."""

from pathlib import Path

import pytest

import cloud
from cloud.errors import ConfigError
from cloud.plans import Cohort, Plan, PlanShape, Stage, for_system, parse_plan

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


MISTAKEN = """eror = 0.1
[cohort]
tag = ["pilot"]

[[stages]]
kind = "canary"
share = 0.1
devices = 3
min_s = 10
max_s = 5

[[stages]]
kind = "ramp"
share = 0.5
[stages.window]
start = "25:00"
end = "04:00"
zone = "Europe/Berlim"
[[stages.gates]]
metric = "wrng"
margin = 0.05
[[stages.gates]]
metric = "deferral"
marign = 0.05
"""


def test_all_mistakes_of_a_plan_are_told_at_once_each_with_its_line_and_the_nearest_key() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(MISTAKEN, name="night.toml")
    told = str(caught.value).splitlines()
    assert told[0] == "night.toml: 9 mistake(s)"
    for line, words in (
        (1, "eror: unknown key; did you mean 'error'?"),
        (3, "cohort.tag: unknown key; did you mean 'tags'?"),
        (5, "share and devices: give one of them; min_s 10.0 must not exceed max_s 5.0"),
        (12, "stages.1: the last stage must reach every device: a ramp with share 1.0, or a switch"),
        (16, "stages.1.window.start: expected hours and minutes such as 22:00, got '25:00'"),
        (18, "no time zone is called so; did you mean 'Europe/Berlin'?"),
        (20, "'memory', got 'wrng'; did you mean 'wrong'?"),
        (22, "stages.1.gates.1.margin: missing"),
        (24, "stages.1.gates.1.marign: unknown key; did you mean 'margin'?"),
    ):
        assert any(said.startswith(f"  line {line}: ") and words in said for said in told), (line, words, told)


def test_mistakes_of_a_plan_in_json_have_their_lines_too() -> None:
    text = '{\n "cohort": {"sites": ["a"],\n  "tag": []},\n "stages": [\n  {"kind": "canary",\n   "shar": 0.1}\n ]\n}'
    with pytest.raises(ConfigError) as caught:
        parse_plan(text)
    assert "line 3: cohort.tag: unknown key; did you mean 'tags'?" in str(caught.value)
    assert "line 6: stages.0.shar: unknown key; did you mean 'share'?" in str(caught.value)


def test_a_cohort_is_drawn_by_tags_and_tags_keep_no_two_apart() -> None:
    pilots = Cohort(tags=["pilot", "night"])
    assert pilots.holds("box-1", "a", "x", ["pilot"])
    assert not pilots.holds("box-1", "a", "x", ["day"])
    assert pilots.may_overlap(Cohort(tags=["day"])), "a device may bear both"
    assert not pilots.everyone
    assert Cohort().everyone


@pytest.mark.parametrize(
    ("errors", "named"),
    [((0.04, 0.04), "add up to 0.08"), ((0.02, 0.03), None), ((0.05, None), "add up to 0.05"), ((0.01, None), None)],
)
def test_a_gate_may_have_an_error_of_its_own_within_the_plans(errors: tuple[float, ...], named: str | None) -> None:
    gates = "".join(
        f"[[stages.gates]]\nmetric = '{metric}'\nmargin = 0.1\n" + (f"error = {error}\n" if error else "")
        for metric, error in zip(("wrong", "deferral"), errors, strict=True)
    )
    text = "[[stages]]\nkind = 'ramp'\nshare = 1.0\n" + gates
    if named is not None:
        with pytest.raises(ConfigError, match=named):
            parse_plan(text)
        return
    plan = parse_plan(text)
    assert sum(plan.fail_error(gate) for gate in plan.stages[0].gates) == pytest.approx(0.05)
    assert plan.fail_error(plan.stages[0].gates[0]) == errors[0]


@pytest.mark.parametrize(
    ("kind", "metric", "named"),
    [("shadow", "deferral", "is disagreement"), ("canary", "disagreement", "belongs to a stage of kind shadow")],
)
def test_disagreement_is_judged_in_the_shadow_only(kind: str, metric: str, named: str) -> None:
    text = f"[[stages]]\nkind = '{kind}'\nshare = 0.5\n[[stages.gates]]\nmetric = '{metric}'\nmargin = 0.1\n"
    with pytest.raises(ConfigError, match=named):
        parse_plan(text + "[[stages]]\nkind = 'ramp'\nshare = 1.0\n")


def test_the_plan_in_the_readme_can_be_read() -> None:
    text = (Path(cloud.__file__).parent / "README.md").read_text()
    plan = parse_plan(text.split("```toml\n")[1].split("```")[0])
    assert [stage.kind for stage in plan.stages] == ["shadow", "canary", "ramp"]
    assert plan.stages[1].window is not None
    assert plan.fail_error(plan.stages[1].gates[0]) == 0.02


def test_plan_of_a_system_has_no_gates_that_decisions_would_have_to_answer() -> None:
    usual = for_system(parse_plan(""))
    assert [(stage.kind, stage.share, stage.gates) for stage in usual.stages] == [
        ("canary", 0.1, []),
        ("ramp", 0.5, []),
        ("ramp", 1.0, []),
    ]
    both = for_system(parse_plan('{"strategy": "blue_green"}'))
    assert [(stage.kind, stage.gates) for stage in both.stages] == [("shadow", []), ("switch", [])]
    own = parse_plan('[[stages]]\nkind = "ramp"\nshare = 1.0')
    assert for_system(own) == own
    with pytest.raises(ValueError, match=r"gates \(wrong, deferral, errors"):
        for_system(parse_plan(DEMO.read_text()))
