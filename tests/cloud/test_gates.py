"""The gate keeps its promises: no pass without data, stated errors at all looks together, words for what is missing."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

import cloud
from cloud import eprocess
from cloud.gates import Counts, GateSpec, Group, judge
from cloud.plans import parse_plan

ERROR = 0.05
SPEC = GateSpec(metric="wrong", margin=0.2, tolerance=0.05)


def counts(bad: int, n: int) -> Counts:
    return Counts(bad=bad, n=n)


@given(st.integers(0, 400), st.floats(0, 1))
def test_an_arm_without_data_never_passes_or_fails(n: int, share: float) -> None:
    some = counts(int(share * n), n)
    assert judge(SPEC, some, counts(0, 0), fail_error=ERROR, pass_error=ERROR).verdict == "need_more"
    assert judge(SPEC, counts(0, 0), some, fail_error=ERROR, pass_error=ERROR).verdict == "need_more"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_bounds_agree_with_the_verdict(bad: int, good: int, bad_c: int, good_c: int) -> None:
    answer = judge(SPEC, counts(bad, bad + good), counts(bad_c, bad_c + good_c), fail_error=ERROR, pass_error=ERROR)
    near = 5e-4  # how finely bounds are searched
    assert answer.low <= answer.high
    if answer.harm is not None:
        assert answer.low <= answer.harm + near
        assert answer.high >= answer.harm - near
    if answer.verdict == "fail":
        assert answer.low >= SPEC.tolerated - near
    elif answer.verdict == "pass":
        assert answer.high <= SPEC.margin + near
        assert answer.low <= SPEC.tolerated + near
    else:
        assert answer.high >= SPEC.margin - near


def test_a_version_as_good_as_the_old_one_passes_and_a_bad_one_fails() -> None:
    assert judge(SPEC, counts(2, 100), counts(2, 100), fail_error=ERROR, pass_error=ERROR).verdict == "pass"
    assert judge(SPEC, counts(40, 100), counts(2, 100), fail_error=ERROR, pass_error=ERROR).verdict == "fail"


def test_harm_between_tolerance_and_margin_fails_in_the_end() -> None:
    assert judge(SPEC, counts(1200, 10_000), counts(200, 10_000), fail_error=ERROR, pass_error=ERROR).verdict == "fail"


def test_a_metric_that_is_worse_when_lower_is_judged_the_other_way_round() -> None:
    spec = GateSpec(metric="deferral", margin=0.2, tolerance=0.05, worse="lower")
    assert judge(spec, counts(10, 200), counts(100, 200), fail_error=ERROR, pass_error=ERROR).verdict == "fail"
    assert judge(spec, counts(100, 200), counts(10, 200), fail_error=ERROR, pass_error=ERROR).verdict == "pass"


def test_missing_evidence_is_named_and_is_about_what_it_takes() -> None:
    answer = judge(SPEC, counts(0, 10), counts(0, 20), elapsed_s=5, fail_error=ERROR, pass_error=ERROR)
    assert answer.verdict == "need_more"
    assert answer.missing is not None
    assert answer.missing.eta_s is not None
    assert 0 < answer.missing.eta_s == pytest.approx(answer.missing.candidate / 2, rel=0.2)
    assert "reviewed audits" in answer.words
    then = judge(
        SPEC,
        counts(0, 10 + answer.missing.candidate),
        counts(0, 20 + answer.missing.control),
        fail_error=ERROR,
        pass_error=ERROR,
    )
    assert then.verdict == "pass"


def test_nothing_seen_yet_still_says_how_much_is_needed() -> None:
    answer = judge(SPEC, counts(0, 0), counts(0, 0), fail_error=ERROR, pass_error=ERROR)
    assert answer.missing is not None
    assert 10 < answer.missing.candidate < 1000
    assert answer.missing.eta_s is None


def test_without_a_control_group_only_the_candidate_can_add_evidence() -> None:
    answer = judge(SPEC, counts(0, 10), counts(0, 500), concurrent=False, fail_error=ERROR, pass_error=ERROR)
    assert answer.missing is not None
    assert answer.missing.control == 0
    assert "before" in answer.words


def test_looking_after_every_case_keeps_the_stated_errors() -> None:
    """A thousand pairs of streams with no harm, and with harm at the margin, looked at after each of 300 cases."""
    seed = 20
    print("seed", seed)
    rng = np.random.default_rng(seed)
    runs, cases = 1000, 300
    n = np.arange(1, cases + 1)

    def stream(rate: float) -> NDArray[np.int64]:
        return np.cumsum(rng.random((runs, cases)) < rate, axis=1)

    harm = eprocess.against_at_most(stream(0.1), n, stream(0.05), n, 0.05, SPEC.prior)
    safety = eprocess.against_at_least(stream(0.25), n, stream(0.05), n, 0.2, SPEC.prior)
    allowed = 0.05 * runs + 3 * math.sqrt(runs * 0.05 * 0.95)
    assert (harm.max(axis=1) >= -math.log(0.05)).sum() <= allowed
    assert (safety.max(axis=1) >= -math.log(0.05)).sum() <= allowed


def test_the_constrained_maximum_is_the_one_that_a_fine_grid_finds() -> None:
    x, n, y, m, d = 7.0, 30.0, 2.0, 50.0, 0.05
    q = np.linspace(1e-6, 1 - d - 1e-6, 200_001)
    p = q + d
    best = (x * np.log(p) + (n - x) * np.log(1 - p) + y * np.log(q) + (m - y) * np.log(1 - q)).max()
    flat = ((1.0, 1.0, 1.0),)  # uniform prior: the mixture is a product of beta functions
    mixture = sum(math.lgamma(a + 1) + math.lgamma(b - a + 1) - math.lgamma(b + 2) for a, b in ((x, n), (y, m)))
    assert float(eprocess.against_at_most(x, n, y, m, d, flat)) == pytest.approx(mixture - best, abs=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"metric": "wrong", "margin": 0.1, "tolerance": 0.1},
        {"metric": "latency", "margin": 0.1},
        {"metric": "wrong", "margin": 0.1, "limit_ms": 5},
        {"metric": "accuracy", "margin": 0.1},
        {"metric": "wrong", "margin": 0.0},
    ],
)
def test_a_gate_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GateSpec.model_validate(fields)


def test_more_bad_cases_than_cases_are_refused() -> None:
    with pytest.raises(ValidationError):
        counts(2, 1)


DEMO_RUNS, DEMO_S = 400, 100
PER_S = {"wrong": 3, "deferral": 9, "errors": 9}
"""Cases of each arm in a second of the demonstration: about a third of nine decisions is audited."""
USUAL = {"wrong": 0.02, "deferral": 0.1, "errors": 0.0}


@pytest.mark.parametrize(
    ("wrong", "outcome", "least", "median_s", "ninth_s"),
    [
        # share of wrong automated decisions, what the gates say, in how many runs at least, median, 90 % of the runs
        (0.02, "pass", 0.99, 9, 20),
        (0.50, "fail", 0.99, 9, 16),
        (0.40, "fail", 0.99, 13, 24),
        (0.30, "fail", 0.97, 20, 40),
        (0.22, "fail", 0.90, 40, 90),
    ],
)
def test_the_demonstration_plan_answers_in_seconds(
    wrong: float, outcome: str, least: float, median_s: float, ninth_s: float
) -> None:
    plan = parse_plan((Path(cloud.__file__).parent / "demo_plan.toml").read_text())
    rng = np.random.default_rng(3)
    seconds = np.arange(1, DEMO_S + 1)
    failed, passed = np.full(DEMO_RUNS, np.inf), np.zeros(DEMO_RUNS)
    for spec in plan.stages[0].gates:
        n = PER_S[spec.metric] * seconds
        rates = (wrong if spec.metric == "wrong" else USUAL[spec.metric], USUAL[spec.metric])
        t, c = (np.cumsum(rng.binomial(PER_S[spec.metric], p, (DEMO_RUNS, DEMO_S)), axis=1) for p in rates)
        harm = eprocess.against_at_most(t, n, c, n, spec.tolerated, spec.prior) >= -math.log(plan.fail_error(spec))
        safety = eprocess.against_at_least(t, n, c, n, spec.margin, spec.prior) >= -math.log(plan.error)
        failed = np.minimum(failed, _first_s(harm))
        passed = np.maximum(passed, _first_s(safety))
    answered_s = np.where(failed <= passed, failed, passed)
    right = (failed <= passed) == (outcome == "fail")
    found = np.where(right, answered_s, np.inf)
    print(f"wrong {wrong:.0%}: {np.mean(right):.3f} {outcome}, median {np.median(found)} s, seed 3")
    assert np.mean(np.isfinite(found)) >= least
    assert np.median(found) <= median_s
    assert np.quantile(found, 0.9, method="lower") <= ninth_s


def _first_s(said: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(said.any(axis=1), said.argmax(axis=1) + 1.0, np.inf)


def drawn(*groups: tuple[float, int, int, int]) -> Counts:
    """Return an arm's counts from (probability, drawn from, bad, cases)."""
    made = tuple(Group(probability=p, of=of, bad=bad, n=n) for p, of, bad, n in groups)
    return Counts(bad=sum(g.bad for g in made), n=sum(g.n for g in made), groups=made)


def test_audits_count_by_inverse_sampling_probability() -> None:
    arm = drawn((0.01, 9000, 1, 90), (0.5, 1000, 150, 500))
    assert arm.rate == pytest.approx(0.9 * 1 / 90 + 0.1 * 150 / 500)
    assert drawn((0.01, 9000, 0, 0), (0.5, 1000, 150, 500)).rate == pytest.approx(0.3), "what was not seen is left out"


def test_an_arm_that_audits_its_hard_cases_more_often_is_no_worse_for_it() -> None:
    """Both versions err alike in either group; the candidate's boxes merely audit the hard one ten times as often."""
    candidate = drawn((0.05, 9000, 9, 450), (0.5, 1000, 150, 500))
    control = drawn((0.05, 9500, 10, 475), (0.5, 500, 75, 250))
    naive = judge(
        SPEC,
        counts(candidate.bad, candidate.n),
        counts(control.bad, control.n),
        fail_error=ERROR,
        pass_error=ERROR,
    )
    weighted = judge(SPEC, candidate, control, fail_error=ERROR, pass_error=ERROR)
    assert naive.harm is not None and weighted.harm is not None
    assert naive.harm > 0.04
    assert abs(weighted.harm) < 0.002
    assert weighted.verdict == "pass"
    assert "by inverse sampling probability" in weighted.words


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)), min_size=2))
def test_bounds_of_groups_agree_with_their_verdict(groups: list[tuple[int, int, int, int]]) -> None:
    probabilities = [2.0**-i for i in range(len(groups))][:4]
    rows = list(zip(probabilities, groups, strict=False))
    candidate = drawn(*((p, 50, bad, bad + good) for p, (bad, good, _, _) in rows))
    control = drawn(*((p, 70, bad, bad + good) for p, (_, _, bad, good) in rows))
    answer = judge(SPEC, candidate, control, fail_error=ERROR, pass_error=ERROR)
    assert answer.low <= answer.high
    if answer.verdict == "fail":
        assert answer.low >= SPEC.tolerated - 5e-4
    elif answer.verdict == "pass":
        assert answer.high <= SPEC.margin + 5e-4
    if answer.missing is not None:
        assert answer.missing.candidate > 0


def test_a_group_that_no_one_has_reviewed_keeps_the_answer_open() -> None:
    seen = drawn((0.5, 500, 0, 5000), (0.01, 500, 0, 0))
    answer = judge(SPEC, seen, seen, fail_error=ERROR, pass_error=ERROR)
    assert answer.verdict == "need_more", "half of the decisions might all be wrong"


def test_groups_looked_at_after_every_window_keep_the_stated_errors() -> None:
    """Rates differ by group and arms differ in their mix; neither is harm. And harm at the margin does not pass."""
    seed = 21
    print("seed", seed)
    rng = np.random.default_rng(seed)
    runs, windows, share = 400, 60, np.array([0.8, 0.2])
    sizes_t, sizes_c = np.array([2, 10]), np.array([8, 4])
    steps = np.arange(1, windows + 1)[None, :, None]

    def stream(sizes: NDArray[np.int64], rates: list[float]) -> NDArray[np.int64]:
        return np.cumsum(rng.binomial(sizes, rates, (runs, windows, 2)), axis=1)

    def largest(test: object, candidate: list[float], control: list[float], difference: float) -> int:
        t, c = stream(sizes_t, candidate), stream(sizes_c, control)
        found = test(t, sizes_t * steps, c, sizes_c * steps, share, difference, SPEC.prior)  # type: ignore[operator]
        return int((found.max(axis=1) >= -math.log(0.05)).sum())

    allowed = 0.05 * runs + 3 * math.sqrt(runs * 0.05 * 0.95)
    assert largest(eprocess.groups_at_most, [0.02, 0.3], [0.02, 0.3], 0.0) <= allowed
    assert largest(eprocess.groups_at_least, [0.12, 0.3], [0.02, 0.3], 0.08) <= allowed
    assert largest(eprocess.groups_at_most, [0.3, 0.3], [0.02, 0.3], 0.0) > 0.9 * runs, "harm is found all the same"


def test_disagreement_on_the_same_inputs_is_one_stream_without_a_control() -> None:
    spec = GateSpec(metric="disagreement", margin=0.05, tolerance=0.02)
    none = Counts()
    assert judge(spec, none, none, fail_error=ERROR, pass_error=ERROR).verdict == "need_more"
    few = judge(spec, counts(2, 400), none, fail_error=ERROR, pass_error=ERROR)
    assert few.verdict == "pass"
    assert "2 of 400 (0.5 %) inputs that both judged" in few.words
    assert judge(spec, counts(40, 400), none, fail_error=ERROR, pass_error=ERROR).verdict == "fail"
    early = judge(spec, counts(0, 20), none, elapsed_s=10, fail_error=ERROR, pass_error=ERROR)
    assert early.missing is not None
    assert early.missing.control == 0
    assert early.missing.eta_s == pytest.approx(early.missing.candidate / 2, rel=0.2)


def test_one_stream_looked_at_after_every_case_keeps_the_stated_errors() -> None:
    seed = 22
    print("seed", seed)
    rng = np.random.default_rng(seed)
    runs, cases = 1000, 300
    n = np.arange(1, cases + 1)
    bad = np.cumsum(rng.random((runs, cases)) < 0.05, axis=1)
    allowed = 0.05 * runs + 3 * math.sqrt(runs * 0.05 * 0.95)
    for found in (eprocess.one_at_most(bad, n, 0.05, SPEC.prior), eprocess.one_at_least(bad, n, 0.05, SPEC.prior)):
        assert (found.max(axis=1) >= -math.log(0.05)).sum() <= allowed


def test_log_gamma_of_arrays_is_that_of_the_standard_library() -> None:
    values = np.concatenate([np.geomspace(0.01, 1e8, 400), np.arange(1, 300) / 2])
    expected = np.array([math.lgamma(value) for value in values])
    assert np.allclose(eprocess._log_gamma(values), expected, rtol=1e-12, atol=1e-12)
