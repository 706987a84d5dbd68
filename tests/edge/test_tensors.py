"""What runtimes hand out of a network's output: real numbers, and logits whatever the file gives."""

import numpy as np
import pytest

from edge.calibrate import probabilities
from edge.errors import ModelError
from edge.runtimes.tensors import golden_numbers, real_numbers
from edge.wire.manifest import Calibration, TensorSpec


def spec_of(shape: list[int], **more: object) -> TensorSpec:
    """Return an output."""
    return TensorSpec.model_validate({"name": "out", "shape": shape, "dtype": "float32", **more})


def chances_of(values: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return the uncalibrated probabilities that a device makes of an output."""
    return np.asarray(probabilities(real_numbers(values, spec)[None], Calibration())[0])


def test_probabilities_come_back_as_they_were() -> None:
    given = np.array([[0.7, 0.2, 0.1]], np.float32)
    got = chances_of(given, spec_of([1, 3], values="probabilities"))
    assert got == pytest.approx(given[0], abs=1e-6)


def test_quantized_probability_of_nothing_stays_possible() -> None:
    spec = spec_of([1, 3], dtype="uint8", scale=1 / 256, zero_point=0, values="probabilities")
    got = chances_of(np.array([[255, 1, 0]], np.uint8), spec)
    assert np.isfinite(real_numbers(np.array([[255, 1, 0]], np.uint8), spec)).all()
    assert got[0] > 0.99
    assert got[2] == pytest.approx(got[1] / 6, rel=1e-3), "half a step for three labels"


def test_a_thousand_labels_of_nothing_do_not_outweigh_the_one_that_is_sure() -> None:
    spec = spec_of([1, 1001], dtype="uint8", scale=1 / 256, zero_point=0, values="probabilities")
    values = np.zeros((1, 1001), np.uint8)
    values[0, 7] = 230
    assert chances_of(values, spec)[7] == pytest.approx(230 / 256, abs=0.11)


@pytest.mark.parametrize("values", ["logits", "probabilities", "sigmoids"])
def test_golden_answers_are_compared_in_what_the_file_gives(values: str) -> None:
    given = np.array([[0.75, 0.25]], np.float32)
    spec = spec_of([1, 2], values=values)
    assert golden_numbers(real_numbers(given, spec), spec) == pytest.approx(given[0], abs=1e-6)


def test_sigmoids_become_their_odds() -> None:
    given = np.array([[0.5, 0.9]], np.float32)
    assert real_numbers(given, spec_of([1, 2], values="sigmoids")) == pytest.approx([0.0, np.log(9)], abs=1e-5)


def test_single_sigmoid_is_the_chance_of_the_second_label() -> None:
    spec = spec_of([1, 1], values="sigmoids")
    assert spec.answer_shape == [1, 2]
    assert chances_of(np.array([[0.8]], np.float32), spec) == pytest.approx([0.2, 0.8], abs=1e-5)


@pytest.mark.parametrize("certain", [0.0, 1.0])
def test_certainty_stays_a_finite_number(certain: float) -> None:
    assert np.isfinite(real_numbers(np.array([[certain]], np.float32), spec_of([1, 1], values="sigmoids"))).all()


def test_logits_pass_unchanged() -> None:
    given = np.array([[-3.0, 4.5]], np.float32)
    assert np.array_equal(real_numbers(given, spec_of([1, 2])), given[0])


def test_output_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match=r"expected shape \[1, 2\], got \[1, 3\]"):
        real_numbers(np.zeros((1, 3), np.float32), spec_of([1, 2]))
