"""Limits that were agreed beforehand."""

from pathlib import Path

import pytest

from edge.errors import ConfigError
from export.limits import Limits, audit, read
from tests.export.judgements import inspected

FINE = inspected([0.05] * 200 + [0.95] * 200, [False] * 200 + [True] * 200, sites="n" * 100 + "s" * 300)


def agreed(**rows: list[dict[str, object]]) -> Limits:
    return Limits.model_validate(rows)


def test_limit_is_met_only_by_the_whole_interval() -> None:
    few = inspected([0.95] * 10, [True] * 10)
    rule = agreed(limit=[{"metric": "recall", "label": "scratch", "min": 0.9}])
    assert audit(FINE, rule)["passed"] is True
    answer = audit(few, rule)
    assert answer["passed"] is False
    assert "too few examples" in answer["limits"][0]["why"]


def test_figure_alone_is_enough_where_that_was_agreed() -> None:
    few = inspected([0.95] * 10, [True] * 10)
    rule = agreed(limit=[{"metric": "recall", "label": "scratch", "min": 0.9, "proof": "figure"}])
    assert audit(few, rule)["passed"] is True


def test_limit_that_no_example_tests_fails() -> None:
    rule = agreed(limit=[{"metric": "accuracy", "where": {"site": "moon"}, "min": 0.1}])
    answer = audit(FINE, rule)
    assert answer["passed"] is False
    assert answer["limits"][0]["why"] == "no example tests it"


def test_slice_below_its_limit_fails_while_the_whole_passes() -> None:
    judged = inspected([0.05] * 190 + [0.95] * 10, [False] * 200, sites="n" * 190 + "s" * 10)
    rule = agreed(
        limit=[
            {"metric": "accuracy", "min": 0.9, "proof": "figure"},
            {"metric": "accuracy", "where": {"site": "s"}, "min": 0.9, "proof": "figure"},
        ]
    )
    assert [row["passed"] for row in audit(judged, rule)["limits"]] == [True, False]


def test_worse_than_in_service_fails_and_a_missing_version_too() -> None:
    rule = agreed(against=[{"metric": "accuracy", "worse_max": 0.01}])
    worse = inspected([0.05] * 180 + [0.95] * 220, [False] * 200 + [True] * 200)
    assert audit(worse, rule, FINE)["passed"] is False
    assert audit(FINE, rule, worse)["passed"] is True
    assert audit(FINE, rule)["passed"] is False


def test_spread_between_sites_is_held_to_its_limit() -> None:
    judged = inspected([0.05] * 60 + [0.95] * 40, [False] * 100, sites="n" * 60 + "s" * 40)
    answer = audit(judged, agreed(fairness=[{"by": "site", "metric": "accuracy", "gap_max": 0.2}]))
    assert answer["limits"][0]["value"] == 1.0
    assert answer["passed"] is False


def test_without_limits_there_is_no_answer_and_it_says_what_was_not_tested() -> None:
    answer = audit(inspected([0.1] * 9, [False] * 9), None)
    assert answer["passed"] is None
    assert "class scratch: no example" in answer["not_tested"]


def test_file_with_an_unknown_metric_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('[[limit]]\nmetric = "luck"\nmin = 0.5\n')
    with pytest.raises(ConfigError, match=r"limit\.0\.metric"):
        read(path)


def test_limit_without_an_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text('[[limit]]\nmetric = "recall"\n')
    with pytest.raises(ConfigError, match="either min or max"):
        read(path)


def test_example_in_the_module_is_a_file_of_limits(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text(
        '[[limit]]\nmetric = "recall"\nlabel = "scratch"\nwhere = { site = "north" }\nmin = 0.9\n'
        '[[against]]\nmetric = "accuracy"\nworse_max = 0.01\n'
        '[[fairness]]\nby = "speaker"\nmetric = "accuracy"\ngap_max = 0.1\n'
    )
    found = read(path)
    assert (len(found.limit), len(found.against), len(found.fairness)) == (1, 1, 1)
