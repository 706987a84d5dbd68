"""Calibration: logits of a known truth come out with the probabilities that made them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.calibrate import probabilities
from export.calibration import ece, fit, nll, reliability
from export.isotonic import knots


def answers(count: int, sharpness: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Logits of a network that is overconfident by `sharpness`, with labels drawn from the true probabilities."""
    rng = np.random.default_rng(seed)
    true_logits = rng.normal(0, 1.5, (count, 4))
    chances = np.exp(true_logits)
    chances /= chances.sum(1, keepdims=True)
    labels = (chances.cumsum(1) > rng.random((count, 1))).argmax(1)
    return (true_logits * sharpness).astype(np.float32), labels.astype(np.intp)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_overconfidence_is_found_by_the_temperature(sharpness: float) -> None:
    logits, labels = answers(4000, sharpness, seed=1)
    fitted = fit(logits, labels, "temperature")
    assert fitted.calibration.temperature == pytest.approx(sharpness, rel=0.08)
    assert fitted.nll_after <= fitted.nll_before + 1e-9
    assert fitted.ece_after < 0.03


def test_vector_undoes_a_bias_that_a_temperature_cannot() -> None:
    logits, labels = answers(4000, 1.0, seed=2)
    skewed = (logits * np.array([1, 2, 1, 1], np.float32) + np.array([0, 0, 1.5, 0], np.float32)).astype(np.float32)
    vector, temperature = fit(skewed, labels, "vector"), fit(skewed, labels, "temperature")
    assert vector.nll_after < temperature.nll_after - 0.02
    assert vector.calibration.scale is not None
    assert vector.calibration.bias is not None
    assert vector.calibration.scale[1] == pytest.approx(0.5, abs=0.1)
    assert vector.calibration.bias[2] - vector.calibration.bias[0] == pytest.approx(-1.5, abs=0.25)


def test_no_error_in_the_sample_does_not_give_certainty_without_end() -> None:
    logits = np.tile(np.array([[4.0, -4.0]], np.float32), (50, 1))
    fitted = fit(logits, np.zeros(50, np.intp), "temperature")
    assert fitted.calibration.temperature >= 0.2
    few = fit(logits, np.zeros(50, np.intp), "vector")
    assert few.calibration.scale is not None
    assert max(few.calibration.scale) < 3


def test_none_changes_nothing() -> None:
    logits, labels = answers(100, 1.0, seed=3)
    fitted = fit(logits, labels, "none")
    assert fitted.calibration.method == "none"
    assert fitted.nll_before == fitted.nll_after


def test_calibration_error_is_zero_when_confidence_equals_accuracy() -> None:
    chances = np.tile(np.array([[0.75, 0.25]]), (400, 1))
    labels = np.repeat([0, 0, 0, 1], 100)
    assert ece(chances, labels) == pytest.approx(0.0, abs=1e-9)
    assert ece(chances, np.ones(400, np.intp)) == pytest.approx(0.75, abs=1e-9)
    assert nll(chances, labels) == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def inspected(count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Logits (good, bad) whose truth follows a curve with a step in it, which no temperature or scale can follow."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 3, count)
    good = rng.random(count) < np.where(margin > 1, 0.99, np.where(margin > -3, 0.6, 0.02))
    return np.stack([margin / 2, -margin / 2], 1).astype(np.float32), np.where(good, 0, 1).astype(np.intp)


def test_isotonic_follows_a_step_that_others_cannot() -> None:
    logits, labels = inspected(4000, seed=5)
    fresh, truth = inspected(4000, seed=6)
    loss = {}
    for method in ("temperature", "vector", "isotonic"):
        fitted = fit(logits, labels, method, good=0)
        loss[method] = nll(probabilities(fresh, fitted.calibration), truth)
    assert loss["isotonic"] < min(loss["temperature"], loss["vector"]) - 0.01


def test_isotonic_keeps_the_order_of_scores() -> None:
    logits, labels = inspected(500, seed=7)
    calibration = fit(logits, labels, "isotonic", good=0).calibration
    order = np.argsort(logits[:, 0] - logits[:, 1])
    good = probabilities(logits, calibration)[order, 0]
    assert (np.diff(good) >= 0).all()
    assert len(np.unique(good.round(9))) > 400, "thresholds are chosen among them: they must stay apart"


def test_isotonic_without_any_error_is_not_certain() -> None:
    found = knots(np.linspace(0.5, 0.99, 40), np.ones(40, np.bool_))
    assert found[0][0] == 0.0 and found[-1][0] == 1.0
    assert found[-2][1] == pytest.approx(40.5 / 41)
    assert found[-1][1] < 1.0


def test_isotonic_of_keywords_is_refused() -> None:
    with pytest.raises(ValueError, match="inspection only"):
        fit(*answers(50, 1.0, seed=1), "isotonic")


def test_auto_takes_what_fits_and_says_what_it_tried() -> None:
    stepped = fit(*inspected(3000, seed=8), "auto", good=0)
    assert stepped.method == "isotonic"
    assert set(stepped.tried) == {"temperature", "vector", "isotonic"}
    plain = fit(*answers(3000, 2.0, seed=9), "auto")
    assert plain.method == plain.calibration.method == "temperature"
    assert set(plain.tried) == {"temperature", "vector"}


def test_auto_is_not_fooled_by_one_part_photographed_often() -> None:
    """A hundred pictures of each of six parts: a curve learns the parts by heart, new parts show it."""
    rng = np.random.default_rng(10)
    part = np.arange(600) // 100
    margins = rng.normal(0, 2, 6)
    logits = np.stack([margins[part], -margins[part]], 1) / 2 + rng.normal(0, 0.05, (600, 2))
    labels = rng.integers(0, 2, 6)[part].astype(np.intp)
    assert fit(logits.astype(np.float32), labels, "auto", groups=part, good=0).method == "temperature"
    assert fit(logits.astype(np.float32), labels, "auto", good=0).method != "temperature"


def test_reliability_counts_every_example_once() -> None:
    chances = np.array([[0.9, 0.1], [0.95, 0.05], [0.4, 0.6]])
    found = reliability(chances, np.array([0, 1, 1]))
    assert found == [(0.6, 1.0, 1), (0.9, 1.0, 1), (0.95, 0.0, 1)]
