"""Calibration: logits of a known truth come out with the probabilities that made them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from export.calibration import ece, fit, nll


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
