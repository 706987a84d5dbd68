"""Figures, curves and advice from judgements."""

from dataclasses import replace

import numpy as np
import pytest

from edge.wire.manifest import InspectPolicy
from export import evidence
from tests.export.judgements import heard, inspected


def test_sides_are_counted_apart() -> None:
    judged = inspected([0.1, 0.1, 0.5, 0.9, 0.9, 0.9], [False, True, False, True, True, False])
    whole = evidence.figures(judged)["whole"]
    assert whole["escape_share"] == {**whole["escape_share"], "count": 1, "total": 2}
    assert whole["false_reject_share"] == {**whole["false_reject_share"], "count": 1, "total": 3}
    assert whole["miss_share"]["total"] == 3
    assert whole["coverage"]["value"] == pytest.approx(5 / 6, abs=1e-4)
    assert whole["wrong_share"]["value"] == pytest.approx(2 / 5)


def test_refused_input_is_deferred_and_has_no_score() -> None:
    judged = inspected([0.1, 0.9], [False, True])
    judged.chances[0] = np.nan
    assert evidence.figures(judged)["whole"]["coverage"]["count"] == 1
    assert evidence.auroc(judged) is None


def test_keywords_are_accepted_by_their_probability() -> None:
    judged = heard([[0.95, 0.05], [0.6, 0.4], [0.02, 0.98]], [0, 0, 0])
    whole = evidence.figures(judged)["whole"]
    assert (whole["coverage"]["count"], whole["wrong_share"]["count"], whole["wrong_share"]["total"]) == (2, 1, 2)


def test_slices_are_figured_apart() -> None:
    judged = inspected([0.1, 0.1, 0.9, 0.1], [False, False, True, True], sites="nnss")
    slices = evidence.figures(judged)["slices"]["site"]
    assert slices["n"]["accuracy"]["value"] == 1.0
    assert slices["s"]["accuracy"]["value"] == 0.5


def test_curves_hold_every_example_once() -> None:
    judged = inspected([0.01, 0.3, 0.99, 0.7], [False, False, True, True])
    curves = evidence.curves(judged)
    assert sum(curves["scores"]["good"]) + sum(curves["scores"]["defective"]) == 4
    assert sum(point["count"] for point in curves["reliability"]) == 4
    assert curves["confusion"] == [[2, 0], [0, 2]]


def test_advice_counts_the_missing_parts() -> None:
    judged = inspected([0.01] * 100 + [0.99] * 100, [False] * 100 + [True] * 100)
    words = " ".join(evidence.advice(judged, 0.01, 0.05, "part", 0.5))
    assert "about 536 more good parts" in words  # 368 decided without error prove 1 %; half of the data proves
    assert "about 536 more defective parts" in words


def test_advice_says_when_more_of_the_same_will_not_do() -> None:
    chance = np.random.default_rng(1)
    judged = inspected(list(chance.random(400)), list(chance.random(400) < 0.5))
    assert "will not do" in " ".join(evidence.advice(judged, 0.01, 0.05, "part", 1.0))


def test_advice_is_content_where_there_are_enough() -> None:
    judged = inspected([0.01] * 900 + [0.99] * 900, [False] * 900 + [True] * 900)
    assert all("enough" in line for line in evidence.advice(judged, 0.01, 0.05, "part", 1.0))


def test_label_that_costs_more_keeps_a_part_from_passing() -> None:
    judged = inspected([0.1, 0.15], [False, False])
    strict = InspectPolicy(pass_max=0.2, divert_min=0.8, label_pass_max={"scratch": 0.12})
    whole = evidence.figures(replace(judged, policy=strict))["whole"]
    assert whole["coverage"]["count"] == 1
