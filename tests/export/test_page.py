"""The page that a bundle is drawn on."""

import re
import xml.etree.ElementTree as ET

from export import charts, page
from export.evidence import curves, figures
from export.promise import promise_in_words
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
    words = " ".join(promise_in_words(bundle(policy=policy)))
    assert "With confidence 95%" in words
    assert "at most 2.00% is defective" in words
    assert "90.0% of 400 parts" in words


def test_side_that_could_not_be_proven_is_said() -> None:
    guarantee = {"method": "m", "alpha_escape": 0.02, "delta": 0.05, "n": 9, "coverage": 0.0}
    policy = {"kind": "inspect", "pass_max": -1.0, "divert_min": 2.0, "guarantee": guarantee}
    assert "could not be proven" in " ".join(promise_in_words(bundle(policy=policy)))


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


def test_page_says_what_int8_cost_and_which_layers_stayed_float() -> None:
    cost: dict[str, object] = {"count": 400, "float_accuracy": 0.97, "int8_accuracy": 0.966, "lost": 0.004}
    cost |= {"low": -0.001, "high": 0.009, "examples": 2, "agreement": 0.99, "logit_error": 0.02}
    cost |= {"ranges": "minmax", "ranges_tried": {"minmax": {"accuracy": 0.96, "logit_error": 0.02}}}
    exported = {"quantization": {**cost, "kept_float": ["stem"]}, "parity": {"same_label_share": 0.998, "max_steps": 1}}
    text = page.render(bundle(metrics={"export": exported}))
    assert "lost 0.40 points, 95 % interval -0.10 to 0.90" in text
    assert "layers that stayed float: stem" in text
    assert "ONNX and TFLite take 99.80% of the decisions alike" in text


def test_page_lists_the_labels_that_look_wrong_and_files_with_two_labels() -> None:
    doubt = {"file": "ok/x.jpg", "label": "good", "looks_like": "crack", "p_label": 0.001}
    data: dict[str, object] = {"files": 9, "classes": {"good": 5, "crack": 4}, "groups": 9, "unit": "picture"}
    data |= {"masks": 0, "doubted_labels": [doubt], "contradicting_duplicates": [["a.jpg", "b.jpg"]]}
    text = page.render(bundle(metrics={"data": data}))
    assert "ok/x.jpg" in text
    assert "a.jpg = b.jpg" in text


def test_what_a_recipe_measured_in_its_own_way_is_on_the_page() -> None:
    boards = {"one": {"auroc": 0.99, "pairs": 3}, "two": {"auroc": 0.98, "pairs": 4}}
    text = page.render(bundle(metrics={"boards_never_seen": boards}))
    assert "boards never seen" in text
    assert "<td>0.98</td>" in text


def test_thresholds_that_nothing_reaches_are_said_in_words() -> None:
    text = page.render(bundle(policy={"kind": "inspect", "pass_max": -1.0, "divert_min": 2.0}))
    assert "pass nothing, divert nothing" in text
