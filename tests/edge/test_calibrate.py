"""Calibrated probabilities: always a distribution, the same bits for the same logits, errors in words."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge.calibrate import calibrated, probabilities
from edge.errors import ModelError
from edge.wire.manifest import Calibration

logits = st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=20).map(lambda v: np.array(v, np.float32))
temperatures = st.floats(0.05, 50)


@given(logits, temperatures)
def test_result_is_a_distribution_in_the_order_of_the_logits(values: np.ndarray, temperature: float) -> None:
    got = calibrated(values.tolist(), Calibration(method="temperature", temperature=temperature))
    assert len(got) == len(values)
    assert abs(sum(got) - 1) < 1e-12 and min(got) >= 0
    assert got[int(np.argmax(values))] == max(got)


@given(logits, temperatures)
def test_each_row_of_a_batch_is_as_if_alone(values: np.ndarray, temperature: float) -> None:
    calibration = Calibration(method="temperature", temperature=temperature)
    batch = probabilities(np.stack([values, values[::-1]]), calibration)
    assert batch.dtype == np.float64 and batch.shape == (2, len(values))
    assert batch[0].tolist() == calibrated(values.tolist(), calibration)


def test_known_logits_give_known_probabilities() -> None:
    got = calibrated([0, np.log(3)], Calibration())
    assert np.allclose(got, [0.25, 0.75])


def test_higher_temperature_is_less_sure() -> None:
    values = [1.0, 3.0, -2.0]
    tops = [max(calibrated(values, Calibration(method="temperature", temperature=t))) for t in (0.5, 1, 2, 4)]
    assert tops == sorted(tops, reverse=True) and tops[0] > tops[-1] + 0.3


def test_vector_calibration_scales_and_shifts_each_label() -> None:
    calibration = Calibration(method="vector", scale=[1.0, 2.0], bias=[np.log(2), 0.0])
    got = calibrated([0.0, 0.5], calibration)
    expected = np.array([2.0, np.e])
    assert np.allclose(got, expected / expected.sum())


@pytest.mark.parametrize("numbers", [None, [1.0], [1.0, 1.0, 1.0]])
def test_vector_calibration_without_a_number_per_label_is_a_model_error(numbers: list[float] | None) -> None:
    for calibration in (
        Calibration(method="vector", scale=numbers, bias=[0.0, 0.0]),
        Calibration(method="vector", scale=[1.0, 1.0], bias=numbers),
    ):
        with pytest.raises(ModelError, match="expected 2 numbers"):
            calibrated([0.0, 0.0], calibration)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logit_that_is_not_finite_is_a_model_error(bad: float) -> None:
    with pytest.raises(ModelError, match="not finite"):
        calibrated([0.0, bad], Calibration())


ISOTONIC = Calibration(method="isotonic", label=0, knots=[(0.0, 0.0), (0.5, 0.2), (1.0, 1.0)])


def test_isotonic_moves_its_label_and_shares_out_the_rest() -> None:
    chances = calibrated([math.log(0.75), math.log(0.2), math.log(0.05)], ISOTONIC)
    assert chances == pytest.approx([0.6, 0.32, 0.08])
    assert sum(chances) == pytest.approx(1.0)


@pytest.mark.parametrize(("logits", "expected"), [([900.0, -900.0], [1.0, 0.0]), ([-900.0, 900.0], [0.0, 1.0])])
def test_isotonic_of_certainty_stays_within_its_ends(logits: list[float], expected: list[float]) -> None:
    assert calibrated(logits, ISOTONIC) == pytest.approx(expected)


@pytest.mark.parametrize(
    "knots",
    [[(0.0, 0.0)], [(0.1, 0.0), (1.0, 1.0)], [(0.0, 0.5), (1.0, 0.4)], [(0.0, 0.0), (0.5, 0.6), (0.5, 0.7), (1, 1)]],
)
def test_knots_that_do_not_rise_from_zero_to_one_are_refused(knots: list[tuple[float, float]]) -> None:
    with pytest.raises(ValidationError, match="isotonic calibration"):
        Calibration(method="isotonic", label=0, knots=knots)


def test_isotonic_of_a_label_that_is_not_there_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="isotonic"):
        calibrated([1.0, 2.0], ISOTONIC.model_copy(update={"label": 2}))


@given(logits, temperatures)
def test_sigmoid_takes_each_label_for_itself(values: np.ndarray, temperature: float) -> None:
    calibration = Calibration(method="sigmoid", temperature=temperature)
    got = calibrated(values.tolist(), calibration)
    assert [calibrated([value], calibration)[0] for value in values.tolist()] == got
    assert all(0 <= p <= 1 for p in got)
    # Next to zero a probability is one half to the last bit.
    assert [p >= 0.5 for p in got if p != 0.5] == [bool(v >= 0) for v, p in zip(values, got, strict=True) if p != 0.5]


def test_sigmoid_has_scale_and_bias_a_label() -> None:
    calibration = Calibration(method="sigmoid", temperature=2.0, scale=[2.0, 1.0], bias=[0.0, math.log(9)])
    assert np.allclose(calibrated([math.log(3), 0.0], calibration), [0.75, 0.75])
    assert np.allclose(calibrated([math.log(3), -math.log(3)], Calibration(method="sigmoid")), [0.75, 0.25])
    with pytest.raises(ModelError, match="expected 3 numbers, got 2"):
        calibrated([0.0, 0.0, 0.0], calibration)
