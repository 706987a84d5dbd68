"""The benchmark of bounds: on worlds whose answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import risk
from edge.errors import ConfigError
from export.scores import Scores, write
from export.thresholds import Sample


def overconfident(units: int, pictures: int, seed: int, task: str = "inspect") -> Scores:
    """Scores that claim far more than they know; all pictures of a unit are alike."""
    rng = np.random.default_rng(seed)
    event = rng.random(units) < 0.4
    knowledge = np.where(event, 1.0, -1.0) * rng.gamma(2.0, 1.0, units) + rng.normal(0, 1.2, units)
    score = 1 / (1 + np.exp(-3 * (knowledge[:, None] + rng.normal(0, 0.05, (units, pictures)))))
    unit = np.repeat(np.arange(units), pictures)
    return Scores(Sample(score.ravel(), np.repeat(event, pictures), unit), task, "made up")  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["inspect", "keyword"])
def test_chosen_thresholds_keep_their_bound_and_a_fixed_one_does_not(task: str) -> None:
    shipped, fixed = risk.measured(overconfident(1200, 2, seed=1, task=task), 60, alpha=0.05, delta=0.1)
    assert (shipped.rule, shipped.kept) == ("learn-then-test", "yes")
    assert shipped.broken <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 60)
    assert (fixed.broken, fixed.kept, fixed.promise) == (1.0, "", "none")
    assert fixed.broken_on_rest > 0.9
    if task == "inspect":
        assert shipped.coverage_mean > 0.2, "a rule that decides nothing keeps any bound"


def test_rule_that_breaks_its_promise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(risk, "_learn_then_test", lambda scores, *_: risk.fixed_rule(scores))
    shipped, _ = risk.measured(overconfident(400, 1, seed=2), 50, alpha=0.02, delta=0.05)
    assert (shipped.broken, shipped.kept) == (1.0, "NO")


def test_no_unit_is_on_both_sides_of_a_split() -> None:
    sample = overconfident(101, 3, seed=3).sample
    parts = risk._split(sample, np.random.default_rng(1))
    pilot, proof, rest = ({int(unit) for unit in np.asarray(part.unit)} for part in parts)
    assert len(pilot) == 15 and len(proof) == 35 and len(rest) == 51
    assert not (pilot & proof or pilot & rest or proof & rest)


def test_unit_with_one_wrong_picture_of_many_is_wrong() -> None:
    score, event = np.full(10, 0.01), np.zeros(10, np.bool_)
    event[3] = True
    rule = risk.fixed_rule(overconfident(4, 1, seed=1))
    assert risk._error(rule, Sample(score, event, np.arange(10) // 5)) == 0.5
    assert risk._error(rule, Sample(score, event, np.arange(10))) == pytest.approx(0.1)


def test_scores_of_a_recipe_are_read_and_printed_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "scores.npz", overconfident(300, 1, seed=4))
    risk.main(as_json=True, files=[tmp_path / "scores.npz"], splits=50, alphas=[0.05, 0.1], delta=0.1)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rule"] for row in rows] == 2 * ["learn-then-test", "threshold 0.9"]
    assert [row["alpha"] for row in rows] == [0.05, 0.05, 0.1, 0.1]
    assert {row["units"] for row in rows} == {300}


def test_too_few_units_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 4 units"):
        risk.measured(overconfident(3, 5, seed=5), 50, alpha=0.02, delta=0.05)


def test_phone_glass_gives_a_score_for_every_part() -> None:
    scores = risk.phone_glass(3, "dim")
    assert scores.name == "phone_glass 1.0.0, dim light"
    assert len(np.unique(scores.sample.units())) == len(scores.sample.score) == 3


def boards(count: int, pairs: int, seed: int, unlike: float) -> Scores:
    """Scores of a model that is as good on each board as it says, or worse on each by another shift."""
    rng = np.random.default_rng(seed)
    block = np.repeat([f"board {number}" for number in range(count)], pairs)
    event = rng.random(len(block)) < 0.5
    shift = np.repeat(rng.normal(0, unlike, count), pairs)
    score = 1 / (1 + np.exp(-(np.where(event, 3.0, -3.0) + rng.normal(0, 1.0, len(block)) + shift)))
    return Scores(Sample(score, event, np.arange(len(block))), "inspect", "boards", block)


def test_bound_by_unit_is_broken_on_boards_that_are_unlike_and_kept_on_like_ones() -> None:
    unlike, _ = risk.across(boards(8, 150, seed=6, unlike=3.0), 50, alpha=0.05, delta=0.1)
    alike, _ = risk.across(boards(8, 150, seed=6, unlike=0.0), 50, alpha=0.05, delta=0.1)
    assert unlike.broken > 0.5 and unlike.coverage_mean > 0.2
    assert alike.broken < 0.2 and alike.coverage_mean > 0.5
    assert (unlike.promise, unlike.kept) == ("none", ""), "no bound covers boards that proved nothing"


def test_block_as_the_unit_defers_everything_and_names_how_many_it_takes() -> None:
    by_block, known, fixed = risk.blocks(boards(8, 50, seed=7, unlike=1.0), 50, alpha=0.1, delta=0.05)
    assert (by_block.split_by, by_block.proves_with, by_block.needed) == ("block", 3, 36)
    assert (by_block.broken, by_block.kept, by_block.coverage_mean) == (0.0, "yes", 0.0)
    assert (known.split_by, known.proves_with) == ("8 blocks, the others", 140)
    assert (fixed.rule, fixed.needed) == ("threshold 0.9", 0)


def test_no_board_that_proves_is_among_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, seen = boards(5, 20, seed=8, unlike=0.0), list[set[float]]()
    block = np.asarray(scores.block)

    def looking(_: Scores, pilot: Sample, proof: Sample, *__: float) -> risk.Decided:
        seen.append({*pilot.score, *proof.score})
        return risk.fixed_rule(scores)

    monkeypatch.setattr(risk, "_learn_then_test", looking)
    risk.across(scores, 50, alpha=0.1, delta=0.05)
    for known in seen:
        whole = {name for name in np.unique(block) if known & {*scores.sample.score[block == name]}}
        assert len(whole) == 2 and len(known) == 40


def test_scores_without_blocks_or_of_a_single_one_are_split_by_unit_only() -> None:
    assert risk.blocks(overconfident(50, 1, seed=9), 50, alpha=0.1, delta=0.05) == []
    assert risk.blocks(boards(1, 50, seed=9, unlike=0.0), 50, alpha=0.1, delta=0.05) == []


def test_scores_beside_the_reference_bundles_keep_their_bound_where_they_can_prove_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = risk.main(as_json=True, real=True, splits=12, alphas=[0.1])
    seen = {row["scores"].split()[0] for row in rows}
    assert seen >= {"ball_screw", "commands", "magnetic_tile", "pcb", "spoken_digits"}
    assert all(row["kept"] == "yes" for row in rows if row["promise"] != "none")
    decided = {row["scores"].split()[0] for row in rows if row["split_by"] == "unit" and row["coverage_mean"] > 0.2}
    assert {"pcb", "spoken_digits"} <= decided, "a rule that decides nothing keeps any bound"
    for row in rows:
        if row["promise"] != "none" and row["proves_with"] < row["needed"]:
            assert row["coverage_mean"] == 0.0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)
