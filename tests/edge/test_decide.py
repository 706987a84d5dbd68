"""Deciding: thresholds to the letter, what each degree of automation does with a verdict, audits and budgets."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.decide import Draw, compared, defer, effective_policy, judge
from edge.values import Judgement, StationSettings
from edge.wire.manifest import InspectPolicy, KeywordPolicy, LabelThresholds, Manifest, MultilabelPolicy
from edge.wire.terms import Action, DeferReason, Mode, Verdict
from tests.bundles import bundle

PASS_MAX, DIVERT_MIN = 0.05, 0.95
PERSON_DECIDES = ("human", "shadow", "assist")
unit = st.floats(0, 1)


def never() -> float:
    """Draw a number that no audit share is above."""
    return 1.0


def always() -> float:
    """Draw a number that every audit share is above."""
    return 0.0


INSPECT = bundle().manifest
KEYWORDS: Manifest = INSPECT.model_copy(
    update={"task": "keyword", "labels": ["yes", "no", "stop"], "policy": KeywordPolicy(accept_min=0.8)}
)


def station(mode: Mode = "partial", **changes: Any) -> StationSettings:
    """Return a station's settings."""
    return StationSettings(station="press", mode=mode, **changes)


def inspected(
    defect: float, settings: StationSettings | None = None, draw: Draw = never, *, in_budget: bool = True
) -> Judgement:
    """Judge a part whose defect score is `defect`; its labels are good and scratch."""
    return judge([1 - defect, defect], INSPECT, settings or station(), draw, in_budget=in_budget)


def heard(*scores: float, settings: StationSettings | None = None) -> Judgement:
    """Judge a word."""
    return judge(scores, KEYWORDS, settings or station(), never, in_budget=True)


@pytest.mark.parametrize(
    ("defect", "verdict"),
    [
        (0.0, "pass"),
        (PASS_MAX, "pass"),
        (np.nextafter(PASS_MAX, 1) + 1e-9, "defer"),
        (0.5, "defer"),
        (np.nextafter(DIVERT_MIN, 0) - 1e-9, "defer"),
        (DIVERT_MIN, "divert"),
        (1.0, "divert"),
    ],
)
def test_thresholds_hold_to_the_letter(defect: float, verdict: Verdict) -> None:
    # The score is 1 − p(good), and 1 − (1 − x) may differ from x in the last bit.
    good = 1 - defect
    manifest = INSPECT.model_copy(update={"policy": InspectPolicy(pass_max=1 - (1 - PASS_MAX), divert_min=DIVERT_MIN)})
    assert judge([good, defect], manifest, station(), never, in_budget=True).verdict == verdict


@given(unit)
def test_sure_is_decided_and_unsure_is_deferred_with_reason(defect: float) -> None:
    got = inspected(defect)
    score = 1 - (1 - defect)
    expected = "pass" if score <= PASS_MAX else "divert" if score >= DIVERT_MIN else "defer"
    assert got.verdict == expected
    assert got.reason == ("unsure" if expected == "defer" else None)
    assert got.scores == {"good": 1 - defect, "scratch": defect}
    assert got.policy == {"pass_max": PASS_MAX, "divert_min": DIVERT_MIN}


@given(unit, st.sampled_from(get_args(Mode)), st.booleans(), st.booleans())
def test_action_follows_from_verdict_mode_and_budget_alone(
    defect: float, mode: Mode, in_budget: bool, audited: bool
) -> None:
    settings = station(mode, audit_share=0.5)
    got = inspected(defect, settings, in_budget=in_budget, draw=always if audited else never)
    if mode in PERSON_DECIDES:
        expected: Action = "none"
    elif got.verdict == "defer":
        expected = "hand_over" if in_budget else "safe"
    else:
        expected = "pass" if got.verdict == "pass" else "divert"
    assert got.action == expected


@given(unit)
def test_full_automation_never_defers_what_was_judged(defect: float) -> None:
    got = inspected(defect, station("full"))
    assert got.verdict == ("pass" if 1 - defect >= 0.5 or 1 - (1 - defect) <= PASS_MAX else "divert")
    assert got.reason is None


@given(unit, st.sampled_from(get_args(Mode)))
def test_audit_marks_a_decision_and_changes_nothing_else(defect: float, mode: Mode) -> None:
    plain = inspected(defect, station(mode))
    drawn = inspected(defect, station(mode, audit_share=0.1), draw=always)
    spared = inspected(defect, station(mode, audit_share=0.1), draw=never)
    for got in (drawn, spared):
        assert (got.verdict, got.action, got.label, got.confidence) == (
            plain.verdict,
            plain.action,
            plain.label,
            plain.confidence,
        )
    if plain.verdict == "defer":
        assert drawn.reason == "unsure" and drawn.audit_probability == 0
    else:
        assert (drawn.reason, spared.reason) == ("audit", None)
        assert drawn.audit_probability == spared.audit_probability == 0.1


def test_audit_share_of_nothing_draws_nothing() -> None:
    assert inspected(0.0, station(), draw=lambda: pytest.fail("drawn")).reason is None


def test_audits_are_drawn_at_their_share() -> None:
    rng = np.random.default_rng(11)
    settings = station(audit_share=0.2)
    audited = sum(inspected(0.0, settings, draw=lambda: float(rng.random())).reason == "audit" for _ in range(5000))
    assert 0.17 < audited / 5000 < 0.23, "seed 11"


def test_confidence_is_of_the_side_that_was_taken() -> None:
    assert inspected(0.02).confidence == pytest.approx(0.98)
    assert inspected(0.99).confidence == pytest.approx(0.99)
    assert inspected(0.3).confidence == pytest.approx(0.7)


def test_defects_of_several_kinds_add_up_even_if_good_is_likeliest() -> None:
    manifest = INSPECT.model_copy(update={"labels": ["good", "scratch", "dent"]})
    got = judge([0.4, 0.3, 0.3], manifest, station(), never, in_budget=True)
    assert (got.verdict, got.label) == ("defer", "good")
    sure = judge([0.04, 0.48, 0.48], manifest, station(), never, in_budget=True)
    assert (sure.verdict, sure.label) == ("divert", "scratch"), "of two alike the first"


def test_words_are_accepted_from_their_threshold_on() -> None:
    sure, unsure = heard(0.1, 0.8, 0.1), heard(0.3, 0.7, 0.0)
    assert (sure.verdict, sure.action, sure.label) == ("accept", "accept", "no")
    assert (unsure.verdict, unsure.action, unsure.reason) == ("defer", "hand_over", "unsure")
    assert heard(0.3, 0.7, 0.0, settings=station("full")).verdict == "accept"
    assert heard(0.4, 0.4, 0.2).label == "yes", "of two alike the first"


@pytest.mark.parametrize("reason", get_args(DeferReason))
@pytest.mark.parametrize("mode", get_args(Mode))
def test_window_that_cannot_be_judged_goes_to_a_person_or_is_safe_in_every_mode(
    reason: DeferReason, mode: Mode
) -> None:
    for in_budget in (True, False):
        got = defer(reason, "camera covered", station(mode), in_budget=in_budget)
        expected = "none" if mode in PERSON_DECIDES else "hand_over" if in_budget else "safe"
        assert (got.verdict, got.reason, got.action) == ("defer", reason, expected)
        assert got.detail is not None and got.detail.startswith("camera covered")
        assert ("budget" in got.detail) == (expected == "safe")
        assert got.scores == {} and got.label is None and got.confidence is None


def test_deferral_beyond_the_budget_says_so() -> None:
    got = inspected(0.5, in_budget=False)
    assert (got.action, got.reason) == ("safe", "unsure")
    assert got.detail == "the hour's budget of deferrals is used up"


def test_overrides_move_thresholds_and_stand_in_the_record() -> None:
    settings = station(policy_overrides={"pass_max": 0.2, "accept_min": 0.1, "unknown": 3.0})
    got = inspected(0.15, settings)
    assert got.verdict == "pass" and got.policy == {"pass_max": 0.2, "divert_min": DIVERT_MIN}
    assert effective_policy(INSPECT.policy, {"unknown": 1.0}) is INSPECT.policy


@pytest.mark.parametrize("defect", [0.0, 0.5, 1.0])
def test_overrides_that_contradict_the_bundle_defer_every_window_in_words(defect: float) -> None:
    settings = station(policy_overrides={"pass_max": 0.99})
    got = inspected(defect, settings)
    assert (got.verdict, got.action, got.reason) == ("defer", "hand_over", "model_error")
    assert got.detail is not None and "pass_max 0.99 must not be above divert_min 0.95" in got.detail
    assert inspected(defect, settings, in_budget=False).action == "safe"


def test_number_of_scores_other_than_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        judge([0.2, 0.3, 0.5], INSPECT, station(), never, in_budget=True)


KINDS = {"scratch": (0.02, 0.9), "dent": (0.1, 0.6), "crack": (0.001, 0.3)}
SEVERAL: Manifest = INSPECT.model_copy(
    update={
        "labels": list(KINDS),
        "policy": MultilabelPolicy(
            labels={name: LabelThresholds(pass_max=low, divert_min=high) for name, (low, high) in KINDS.items()}
        ),
    }
)


def seen(scratch: float, dent: float, crack: float, settings: StationSettings | None = None) -> Judgement:
    """Judge a part that may have several kinds of defect at once."""
    return judge([scratch, dent, crack], SEVERAL, settings or station(), never, in_budget=True)


def test_part_passes_only_if_it_is_free_of_every_kind() -> None:
    got = seen(0.02, 0.1, 0.001)
    assert (got.verdict, got.action, got.label) == ("pass", "pass", "good")
    assert got.confidence == pytest.approx(0.98 * 0.9 * 0.999)
    assert got.scores == {"scratch": 0.02, "dent": 0.1, "crack": 0.001}


def test_one_kind_is_enough_to_divert_whatever_is_unsure_of_the_others() -> None:
    got = seen(0.5, 0.0, 0.35)
    assert (got.verdict, got.label, got.reason) == ("divert", "crack", None)
    assert got.policy["divert_min.crack"] == 0.3 and got.policy["pass_max.scratch"] == 0.02


def test_kind_that_costs_more_has_its_own_bound() -> None:
    assert seen(0.01, 0.01, 0.01).reason == "unsure", "a crack of one per cent is too much"
    assert seen(0.01, 0.09, 0.0).verdict == "pass", "a dent of nine is not"


@given(unit, unit, unit)
def test_kinds_are_judged_apart(scratch: float, dent: float, crack: float) -> None:
    got = seen(scratch, dent, crack)
    scores = dict(zip(KINDS, (scratch, dent, crack), strict=True))
    found = {name for name, p in scores.items() if p >= KINDS[name][1]}
    free = all(p <= KINDS[name][0] for name, p in scores.items())
    assert got.verdict == ("divert" if found else "pass" if free else "defer")
    assert got.label in (found or ({"good"} if free else set(KINDS)))
    assert seen(scratch, dent, crack, station("full")).verdict in ("pass", "divert")
    assert got.confidence is not None and 0 <= got.confidence <= 1


def test_overrides_of_one_kind_are_named_as_in_the_record() -> None:
    settings = station(policy_overrides={"pass_max.crack": 0.05, "pass_max.rust": 1.0})
    got = seen(0.0, 0.0, 0.04, settings)
    assert got.verdict == "pass" and got.policy["pass_max.crack"] == 0.05
    wrong = seen(0.0, 0.0, 0.04, station(policy_overrides={"pass_max.crack": 0.5}))
    assert (wrong.verdict, wrong.reason) == ("defer", "model_error")


def test_defect_that_costs_more_keeps_a_part_from_passing_by_itself() -> None:
    policy = InspectPolicy(pass_max=0.1, divert_min=0.9, label_pass_max={"crack": 0.001})
    manifest = INSPECT.model_copy(update={"labels": ["good", "scratch", "crack"], "policy": policy})
    free = judge([0.95, 0.05, 0.0], manifest, station(), never, in_budget=True)
    held = judge([0.95, 0.04, 0.01], manifest, station(), never, in_budget=True)
    assert (free.verdict, held.verdict, held.reason) == ("pass", "defer", "unsure")
    assert held.policy["label_pass_max.crack"] == 0.001
    assert judge([0.95, 0.04, 0.01], manifest, station("full"), never, in_budget=True).verdict == "divert"
    assert judge([0.01, 0.98, 0.01], manifest, station(), never, in_budget=True).verdict == "divert"


def test_word_that_costs_more_has_its_own_threshold() -> None:
    policy = KeywordPolicy(accept_min=0.8, label_accept_min={"stop": 0.5, "no": 0.95})
    manifest = KEYWORDS.model_copy(update={"policy": policy})

    def verdict(*scores: float) -> Verdict:
        return judge(scores, manifest, station(), never, in_budget=True).verdict

    assert [verdict(0.8, 0.2, 0.0), verdict(0.1, 0.9, 0.0), verdict(0.2, 0.2, 0.6)] == ["accept", "defer", "accept"]


WANTS_TO_SEE = InspectPolicy(pass_max=PASS_MAX, divert_min=DIVERT_MIN, on_disagreement="defer")


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("in_budget", [True, False])
def test_disagreement_of_the_candidate_is_deferred_if_the_policy_wants_it(mode: Mode, in_budget: bool) -> None:
    settings = station(mode)
    ours, theirs = inspected(0.0, settings), inspected(1.0, settings)
    assert compared(ours, theirs, INSPECT.policy, settings, in_budget=in_budget) is ours, "not asked for"
    got = compared(ours, theirs, WANTS_TO_SEE, settings, in_budget=in_budget)
    if mode == "full":
        assert got is ours
        return
    expected = "none" if mode in PERSON_DECIDES else "hand_over" if in_budget else "safe"
    assert (got.verdict, got.reason, got.action) == ("defer", "disagreement", expected)
    assert got.detail is not None and "pass good, but divert scratch by the candidate" in got.detail
    assert (got.scores, got.label) == (ours.scores, ours.label)


@given(unit, unit)
def test_candidate_that_agrees_or_is_unsure_changes_nothing(ours: float, theirs: float) -> None:
    one, other = inspected(ours), inspected(theirs)
    got = compared(one, other, WANTS_TO_SEE, station(), in_budget=True)
    if {one.verdict, other.verdict} != {"pass", "divert"}:
        assert got is one
    else:
        assert got.reason == "disagreement"


def test_candidate_that_hears_another_word_disagrees() -> None:
    policy = KeywordPolicy(accept_min=0.8, on_disagreement="defer")
    yes, no = heard(0.9, 0.1, 0.0), heard(0.1, 0.9, 0.0)
    assert compared(yes, no, policy, station(), in_budget=True).reason == "disagreement"
    assert compared(yes, yes, policy, station(), in_budget=True) is yes
