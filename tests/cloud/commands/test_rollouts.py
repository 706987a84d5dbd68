"""`lineside-cloud rollouts`, against a running application."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cloud.commands.rollouts import app
from tests.cloud.line import BAD, MODEL, Device, Line, Quality
from tests.cloud.serving import serving

PLAN = Path(__file__).parents[3] / "cloud" / "demo_plan.toml"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "cloud", [Device(f"box-{i}") for i in (1, 2, 3)])
    made.second()
    with serving(made.services) as client:
        made.url = str(client.base_url)
        yield made
    made.close()


def run(line: Line, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--server", line.url])


def ok(line: Line, *arguments: str) -> str:
    result = run(line, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_rollout_can_be_started_with_a_plan_and_read_by_machines(line: Line) -> None:
    started = json.loads(ok(line, "start", MODEL, "1.1.0", "--plan", str(PLAN), "--json"))
    assert started["plan"]["stages"][0]["devices"] == 1
    line.second()
    shown = json.loads(ok(line, "status", started["id"], "--json"))
    assert shown["stage"]["kind"] == "canary"
    assert len(shown["arms"]["candidate"]) == len(shown["arms"]["control"]) == 1
    assert json.loads(ok(line, "status", "--json"))["rollouts"][0]["id"] == started["id"]


def test_a_rollout_is_told_in_words(line: Line) -> None:
    assert "No rollout yet" in ok(line, "status")
    assert run(line, "status", "--watch").exit_code == 4
    rollout = ok(line, "start", MODEL, "1.2.0", "--plan", str(PLAN)).strip()
    line.qualities[BAD.digest] = Quality(wrong=0.7)
    for _ in range(4):
        line.second()
    said = ok(line, "status", rollout)
    for word in ("canary (1 of 2)", "candidate", "control", "need more", "needs about", "devices assigned"):
        assert word in said
    line.until(lambda: line.book.rollout(rollout).state.status == "rolled_back", 40)
    assert "rolled back" in ok(line, "status")
    watched = run(line, "status", "--watch")
    assert (watched.exit_code, watched.stdout.splitlines()[-1].startswith("rolled back: ")) == (1, True)
    assert "surely more than" in ok(line, "status", rollout)


def test_a_rollout_is_paused_resumed_and_aborted_with_a_reason(line: Line) -> None:
    rollout = ok(line, "start", MODEL, "1.1.0").strip()
    for move, status in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        assert run(line, move, rollout).exit_code == 2, "a reason is asked for"
        assert json.loads(ok(line, move, rollout, "--why", "because", "--json"))["status"] == status


def test_mistakes_end_with_a_reason_and_an_exit_code(line: Line, tmp_path: Path) -> None:
    wrong = tmp_path / "plan.toml"
    wrong.write_text("eror = 0.1")
    for arguments, code, said in (
        (("start", MODEL, "9.9.9"), 4, "has not been published"),
        (("start", MODEL, "1.1.0", "--plan", str(tmp_path / "none.toml")), 2, "cannot read"),
        (("start", MODEL, "1.1.0", "--plan", str(wrong)), 2, "eror"),
        (("abort", "nothing", "--why", "because"), 4, "no rollout"),
    ):
        result = run(line, *arguments)
        assert (result.exit_code, said in result.output) == (code, True), result.output
