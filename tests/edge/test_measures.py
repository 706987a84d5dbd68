"""Histograms and shares for those who scrape: their edges never change, and no bundle can fill a scraper's memory."""

import pytest

from edge.measures import EDGES, MAX_LABELS, OTHER, RECENT, Measures
from edge.wire.rows import DecisionRow, InputRef

INPUT = InputRef(source="folder", name="a", digest="0" * 64, media_type="image/png", size_bytes=1, kept=False)


def decision(**changes: object) -> DecisionRow:
    known = {"seq": 1, "station": "press", "at_ms": 0, "boot_id": "b", "monotonic_ms": 0, "mode": "partial"}
    return DecisionRow.model_validate({**known, "verdict": "pass", "action": "pass", "input": INPUT, **changes})


def test_value_at_an_edge_is_counted_below_it_as_prometheus_has_it() -> None:
    measures = Measures()
    for value in (0.1, 0.11, 0.9, 1.0):
        measures.add(decision(metrics={"brightness": value}))
    found = measures.measures()["brightness"]
    assert found.edges == EDGES["brightness"]
    assert found.bins == [1, 1, 0, 0, 0, 0, 0, 0, 1, 1] and found.total == pytest.approx(2.11)


def test_measure_that_nobody_knows_or_that_is_no_number_is_left_out() -> None:
    measures = Measures()
    measures.add(decision(metrics={"invented": 1.0, "sharpness": float("nan")}))
    assert measures.measures() == {}


def test_shares_are_of_the_last_decisions_only() -> None:
    measures = Measures()
    for _ in range(RECENT):
        measures.add(decision(verdict="defer", label="scratch"))
    for _ in range(RECENT * 3 // 4):
        measures.add(decision(label="good"))
    shares = measures.shares()
    assert shares.labels == {"good": 0.75, "scratch": 0.25} and shares.deferred == 0.25
    assert shares.empty is None, "it does not hear"


def test_sounds_without_a_word_are_a_share_of_sounds() -> None:
    measures = Measures()
    for text in ("one two", "", "three", None):
        measures.add(decision(text=text))
    assert measures.shares().empty == pytest.approx(1 / 3)


def test_before_the_first_decision_there_are_no_shares() -> None:
    assert Measures().shares().deferred is None


def test_bundle_with_very_many_labels_has_a_bounded_number_of_shares() -> None:
    measures = Measures()
    for number in range(RECENT):
        measures.add(decision(label=f"label-{number}"))
    labels = measures.shares().labels
    assert len(labels) == MAX_LABELS + 1
    assert labels[OTHER] == pytest.approx((RECENT - MAX_LABELS) / RECENT)
