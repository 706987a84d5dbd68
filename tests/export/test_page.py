"""The page that a bundle is drawn on."""

import re
import xml.etree.ElementTree as ET

from export import charts, page
from export.evidence import curves, figures
from tests.bundles import bundle
from tests.export.judgements import inspected


def test_page_of_a_bare_bundle_says_that_nothing_is_promised() -> None:
    text = page.render(bundle())
    assert "Nothing is promised" in text
    assert "brightness 1.0.0" in text


def test_page_needs_no_other_file_and_runs_nothing() -> None:
    text = page.render(bundle())
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "<script" not in text


def test_what_a_bundle_says_of_itself_is_escaped() -> None:
    assert "<img onerror" not in page.render(bundle(note="<img onerror=alert(1)>"))


def test_guarantee_stands_in_words_with_its_numbers() -> None:
    guarantee = {"method": "m", "alpha_escape": 0.02, "delta": 0.05, "n": 400, "unit": "part", "coverage": 0.9}
    policy = {"kind": "inspect", "pass_max": 0.1, "divert_min": 0.9, "guarantee": guarantee}
    words = " ".join(page.promise_in_words(bundle(policy=policy)))
    assert "With confidence 95%" in words
    assert "at most 2.00% is defective" in words
    assert "90.0% of 400 parts" in words


def test_side_that_could_not_be_proven_is_said() -> None:
    guarantee = {"method": "m", "alpha_escape": 0.02, "delta": 0.05, "n": 9, "coverage": 0.0}
    policy = {"kind": "inspect", "pass_max": -1.0, "divert_min": 2.0, "guarantee": guarantee}
    assert "could not be proven" in " ".join(page.promise_in_words(bundle(policy=policy)))


def test_figures_and_curves_are_drawn_from_the_manifest() -> None:
    judged = inspected([0.1, 0.2, 0.9, 0.95], [False, False, True, True], sites="nnss")
    metrics = {"judged": figures(judged), "curves": curves(judged)}
    text = page.render(bundle(metrics=metrics))
    assert text.count("<svg") == 2
    assert "AUROC" in text
    assert "site" in text


def test_audit_stands_on_the_page_with_what_was_not_tested() -> None:
    row = {
        "limit": "recall of scratch: at least 0.9",
        "passed": False,
        "why": "not met",
        "value": 0.5,
        "low": 0.1,
        "high": 0.9,
    }
    audit = {"passed": False, "limits": [row], "not_tested": ["class dent: no example"], "examples": 4, "groups": 4}
    text = page.render(bundle(audit=audit))
    assert "The audit: failed" in text
    assert "class dent: no example" in text


def test_charts_are_well_formed_and_mark_the_thresholds() -> None:
    drawn = charts.histogram({"good": [5, 1, 0], "defective": [0, 2, 9]}, {"pass": 0.2, "divert": 2.0}, "score <s>")
    ET.fromstring(drawn)
    assert "pass 0.2" in drawn
    assert "divert" not in drawn
    ET.fromstring(charts.reliability([{"count": 3, "confidence": 0.9, "right": 1.0}]))
    ET.fromstring(charts.reference([0.1, 0.2, 0.4], [1, 2, 3, 4]))


def test_calibration_before_and_after_is_drawn_where_the_bundle_holds_it() -> None:
    points = [[0.6, 0.7, 10], [0.9, 0.95, 30]]
    heldout: dict[str, object] = {"reliability_before": points, "reliability_after": points}
    heldout |= {"ece_before": 0.1, "ece_after": 0.02, "nll_before": 0.5, "nll_after": 0.4}
    text = page.render(bundle(metrics={"export": {"calibration": {"method": "vector", "heldout": heldout}}}))
    assert "expected error 0.100" in text
    assert "expected error 0.020" in text
    assert "Method: vector" in text
