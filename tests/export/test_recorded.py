"""Limits on figures that a bundle records of its making."""

import pytest
from pydantic import ValidationError

from export.limits import Limits, audit
from export.recorded import Figure, held

RECORDED = {"cross": {"auroc": 0.95, "interval": [0.91, 0.98], "by light": {"6": 0.9}}, "wrong": 2, "decided": 200}


def row(**fields: object) -> Figure:
    return Figure.model_validate({"says": "figure", **fields})


def test_whole_interval_must_hold_unless_the_figure_was_agreed() -> None:
    asked = {"of": "cross/auroc", "interval": "cross/interval", "min": 0.93}
    found = held(row(**asked), RECORDED)
    assert (found["passed"], found["low"]) == (False, 0.91)
    assert "too few examples" in found["why"]
    assert held(row(**asked, proof="figure"), RECORDED)["passed"]


def test_counts_give_a_share_with_its_interval() -> None:
    found = held(row(count="wrong", total="decided", max=0.05), RECORDED)
    assert found["passed"]
    assert (found["value"], found["high"]) == (0.01, 0.0357)


def test_figure_that_was_not_recorded_fails() -> None:
    assert held(row(of="cross/by light/7", min=0.1), RECORDED)["why"] == "the bundle records no such figure"
    assert not held(row(of="cross/by light/6", min=0.1), RECORDED)["passed"], "a figure without interval proves nothing"


def test_limit_needs_one_figure_and_one_end() -> None:
    for fields in ({"of": "a"}, {"of": "a", "min": 0, "max": 1}, {"min": 0}, {"count": "a", "min": 0}):
        with pytest.raises(ValidationError):
            row(**fields)


def test_limits_on_files_fail_where_none_were_judged() -> None:
    agreed = Limits.model_validate(
        {
            "limit": [{"metric": "accuracy", "min": 0.5}],
            "figure": [{"says": "AUROC", "of": "cross/auroc", "min": 0.5, "proof": "figure"}],
        }
    )
    answer = audit(None, agreed, recorded=RECORDED)
    assert [one["passed"] for one in answer["limits"]] == [False, True]
    assert answer["passed"] is False
