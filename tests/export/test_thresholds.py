"""The promise of the thresholds, tested as a promise: on simulated lines whose true rates are known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.thresholds import (
    ACCEPT_NOTHING,
    DIVERT_NOTHING,
    PASS_NOTHING,
    Sample,
    binomial_cdf,
    choose_inspect,
    choose_keyword,
    prove,
    units_needed,
    upper_bound,
)

ALPHA = 0.05


def line(rng: np.random.Generator, count: int, *, skill: float = 3.0, defect_share: float = 0.3) -> Sample:
    """A line on which good and defective parts' log-odds are `skill` apart, with spread 1.5 each."""
    defective = rng.random(count) < defect_share
    odds = rng.normal(np.where(defective, skill, -skill), 1.5)
    return Sample(1 / (1 + np.exp(-odds)), defective)


def true_rates(pass_max: float, divert_min: float, *, skill: float, defect_share: float) -> tuple[float, float]:
    """P(defective | passed) and P(good | diverted) of that line, exactly."""

    def below(mean: float, threshold: float) -> float:
        if not 0 < threshold < 1:
            return float(threshold >= 1)
        z = (math.log(threshold / (1 - threshold)) - mean) / 1.5
        return 0.5 * math.erfc(-z / math.sqrt(2))

    def share(wrong: float, right: float) -> float:
        return wrong / (wrong + right) if wrong + right else 0.0

    bad, good = defect_share, 1 - defect_share
    escape = share(bad * below(skill, pass_max), good * below(-skill, pass_max))
    reject = share(good * (1 - below(-skill, divert_min)), bad * (1 - below(skill, divert_min)))
    return escape, reject


@pytest.mark.parametrize("skill", [1.0, 2.0, 3.0])
def test_many_simulated_lines_break_the_bound_at_most_as_often_as_promised(skill: float) -> None:
    rng = np.random.default_rng(11)
    delta, trials, broken = 0.1, 300, 0
    for _ in range(trials):
        pilot, sample = line(rng, 300, skill=skill), line(rng, 700, skill=skill)
        policy = choose_inspect(pilot, sample, alpha_escape=ALPHA, alpha_false_reject=ALPHA, delta=delta, unit="part")
        escape, reject = true_rates(policy.pass_max, policy.divert_min, skill=skill, defect_share=0.3)
        broken += escape > ALPHA or reject > ALPHA
    # Three standard deviations of a count that breaks with probability delta at most.
    assert broken <= delta * trials + 3 * math.sqrt(delta * (1 - delta) * trials), f"seed 11: {broken} of {trials}"


def test_simulated_lines_with_skill_are_mostly_decided() -> None:
    rng = np.random.default_rng(12)
    policy = choose_inspect(
        line(rng, 600), line(rng, 2000), alpha_escape=ALPHA, alpha_false_reject=ALPHA, delta=0.05, unit="part"
    )
    assert policy.guarantee is not None
    assert policy.guarantee.coverage > 0.9
    assert policy.guarantee.n == 2000


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2000), st.floats(0, 4), st.floats(0, 1))
def test_any_sample_size_gives_ordered_thresholds_with_the_bound_on_record(
    seed: int, count: int, skill: float, defect_share: float
) -> None:
    rng = np.random.default_rng(seed)
    pilot = line(rng, max(count // 3, 1), skill=skill, defect_share=defect_share)
    sample = line(rng, count, skill=skill, defect_share=defect_share)
    policy = choose_inspect(pilot, sample, alpha_escape=ALPHA, alpha_false_reject=ALPHA, delta=0.05, unit="part")
    assert policy.pass_max <= policy.divert_min
    assert policy.guarantee is not None
    for wrong, decided in (
        (sample.event[sample.score <= policy.pass_max].sum(), (sample.score <= policy.pass_max).sum()),
        ((~sample.event[sample.score >= policy.divert_min]).sum(), (sample.score >= policy.divert_min).sum()),
    ):
        if decided and policy.pass_max < policy.divert_min:
            assert upper_bound(int(wrong), int(decided), 0.025) <= ALPHA + 1e-6


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_more_of_the_same_data_never_proves_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pilot, sample = line(rng, 400), line(rng, 500)
    twice = Sample(np.tile(sample.score, 2), np.tile(sample.event, 2))
    once, more = prove(pilot, sample, ALPHA, 0.05), prove(pilot, twice, ALPHA, 0.05)
    assert (more.outermost or 0.0) >= (once.outermost or 0.0)


def test_too_few_units_defers_everything_and_says_how_many_it_takes() -> None:
    rng = np.random.default_rng(13)
    policy = choose_inspect(
        line(rng, 50), line(rng, 60), alpha_escape=0.02, alpha_false_reject=0.02, delta=0.05, unit="part"
    )
    assert (policy.pass_max, policy.divert_min) == (PASS_NOTHING, DIVERT_NOTHING)
    assert policy.guarantee is not None
    assert policy.guarantee.coverage == 0.0
    assert f"at least {units_needed(0.02, 0.025)}" in policy.guarantee.note


def test_too_few_recordings_accept_nothing_and_say_how_many_it_takes() -> None:
    rng = np.random.default_rng(14)
    right = Sample(rng.uniform(0.9, 1, 40), np.ones(40, bool))
    policy = choose_keyword(right, right, alpha_error=0.02, delta=0.05, unit="recording")
    assert policy.accept_min == ACCEPT_NOTHING
    assert policy.guarantee is not None
    assert f"at least {units_needed(0.02, 0.05)}" in policy.guarantee.note


def test_a_network_that_guesses_decides_nothing() -> None:
    rng = np.random.default_rng(15)
    policy = choose_inspect(
        line(rng, 500, skill=0.0),
        line(rng, 2000, skill=0.0),
        alpha_escape=0.02,
        alpha_false_reject=0.02,
        delta=0.05,
        unit="part",
    )
    assert (policy.pass_max, policy.divert_min) == (PASS_NOTHING, DIVERT_NOTHING)


def test_keywords_with_many_right_answers_are_accepted_within_the_bound() -> None:
    rng = np.random.default_rng(16)

    def words(count: int) -> Sample:
        score = rng.uniform(0.3, 1, count)
        return Sample(score, rng.random(count) < np.minimum(1, 0.35 + 0.8 * score))

    policy = choose_keyword(words(800), words(3000), alpha_error=0.03, delta=0.05, unit="recording")
    fresh = words(200_000)
    accepted = fresh.score >= policy.accept_min
    assert accepted.mean() > 0.2
    assert (~fresh.event[accepted]).mean() <= 0.03


def test_scores_that_always_go_to_a_person_do_so_even_where_the_bound_allows_more() -> None:
    rng = np.random.default_rng(18)
    policy = choose_inspect(
        line(rng, 600, skill=9.0),
        line(rng, 3000, skill=9.0),
        alpha_escape=0.02,
        alpha_false_reject=0.02,
        delta=0.05,
        unit="part",
        always_defer=(0.02, 0.9),
    )
    assert 0.018 < policy.pass_max <= 0.02
    assert 0.9 <= policy.divert_min < 0.91
    assert policy.guarantee is not None
    assert "held back at 0.02" in policy.guarantee.note


def test_pictures_of_one_part_count_once() -> None:
    rng = np.random.default_rng(17)
    sample = line(rng, 100)
    repeated = Sample(np.repeat(sample.score, 10), np.repeat(sample.event, 10), np.repeat(np.arange(100), 10))
    side = prove(line(rng, 300), repeated, 0.02, 0.05)
    assert side.outermost is None
    assert "100 units are too few" in side.note


@pytest.mark.parametrize(("wrong", "count", "bound"), [(0, 100, 0.0362), (2, 100, 0.0704), (0, 59, 0.0508)])
def test_upper_bound_agrees_with_published_tables(wrong: int, count: int, bound: float) -> None:
    # One-sided 97.5 % limits of Clopper and Pearson for 100 (0.0362, 0.0704); "rule of three" at 59 (95 %: 0.0495).
    delta = 0.025 if count == 100 else 0.0460
    assert upper_bound(wrong, count, delta) == pytest.approx(bound, abs=2e-4)


def test_p_value_falls_with_every_unit_without_error() -> None:
    values = [binomial_cdf(0, n, 0.02) for n in range(1, 200)]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))
    assert values[units_needed(0.02, 0.05) - 1] <= 0.05 < values[units_needed(0.02, 0.05) - 2]
