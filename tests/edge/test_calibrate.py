"""Calibrated probabilities: always a distribution, the same bits for the same logits, errors in words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.calibrate import probabilities
from edge.errors import ModelError
from edge.wire.manifest import Calibration

logits = st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=20).map(lambda v: np.array(v, np.float32))
temperatures = st.floats(0.05, 50)


@given(logits, temperatures)
def test_result_is_a_distribution_in_the_order_of_the_logits(values: np.ndarray, temperature: float) -> None:
    got = probabilities(values, Calibration(method="temperature", temperature=temperature))
    assert got.dtype == np.float64 and got.shape == values.shape
    assert abs(got.sum() - 1) < 1e-12 and (got >= 0).all()
    assert got[int(np.argmax(values))] == got.max()


@given(logits, temperatures)
def test_each_row_of_a_batch_is_as_if_alone(values: np.ndarray, temperature: float) -> None:
    calibration = Calibration(method="temperature", temperature=temperature)
    batch = probabilities(np.stack([values, values[::-1]]), calibration)
    assert np.array_equal(batch[0], probabilities(values, calibration))


def test_known_logits_give_known_probabilities() -> None:
    got = probabilities(np.array([0, np.log(3)], np.float32), Calibration())
    assert np.allclose(got, [0.25, 0.75])


def test_higher_temperature_is_less_sure() -> None:
    values = np.array([1.0, 3.0, -2.0], np.float32)
    tops = [probabilities(values, Calibration(method="temperature", temperature=t)).max() for t in (0.5, 1, 2, 4)]
    assert tops == sorted(tops, reverse=True) and tops[0] > tops[-1] + 0.3


def test_vector_calibration_scales_and_shifts_each_label() -> None:
    calibration = Calibration(method="vector", scale=[1.0, 2.0], bias=[np.log(2), 0.0])
    got = probabilities(np.array([0.0, 0.5], np.float32), calibration)
    expected = np.array([2.0, np.e])
    assert np.allclose(got, expected / expected.sum())


@pytest.mark.parametrize("numbers", [None, [1.0], [1.0, 1.0, 1.0]])
def test_vector_calibration_without_a_number_per_label_is_a_model_error(numbers: list[float] | None) -> None:
    for calibration in (
        Calibration(method="vector", scale=numbers, bias=[0.0, 0.0]),
        Calibration(method="vector", scale=[1.0, 1.0], bias=numbers),
    ):
        with pytest.raises(ModelError, match="expected 2 numbers"):
            probabilities(np.zeros(2, np.float32), calibration)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logit_that_is_not_finite_is_a_model_error(bad: float) -> None:
    with pytest.raises(ModelError, match="not finite"):
        probabilities(np.array([0.0, bad], np.float32), Calibration())
