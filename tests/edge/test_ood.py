"""Scores of features against what is known: worked by hand, and against the plain formula."""

import math

import numpy as np
import pytest

from edge.errors import ModelError
from edge.ood import Reference, is_strange, reference_of, score, scores
from edge.wire.manifest import OutOfDistribution


def spec(method: str = "mahalanobis", limit: float = 2.0) -> OutOfDistribution:
    return OutOfDistribution.model_validate(
        {"method": method, "file": "known.npy", "limit": limit, "false_alarm_rate": 0.01, "n": 100}
    )


def test_mahalanobis_is_the_distance_in_units_of_the_spread() -> None:
    # Mean (1, 2), spread 2 and 0.5 along the axes.
    values = np.array([[0.5, 0.0, 0.5], [0.0, 2.0, 4.0]], np.float32)
    reference = reference_of(spec(), values, 2)
    assert score(np.array([1.0, 2.0], np.float32), reference) == pytest.approx(0.0)
    assert score(np.array([7.0, 4.0], np.float32), reference) == pytest.approx(5.0)


def test_nearest_is_the_angle_to_the_nearest_prototype_whatever_the_length() -> None:
    reference = reference_of(spec("nearest", 0.1), np.array([[1, 0, 0], [0, 1, 0]], np.float32), 2)
    assert score(np.array([0.0, 7.0], np.float32), reference) == pytest.approx(0.0)
    assert score(np.array([3.0, 3.0], np.float32), reference) == pytest.approx(1 - math.sqrt(0.5))
    assert score(np.array([3.0, 4.0], np.float32), reference) == pytest.approx(0.2)


def test_scores_of_many_are_those_of_each() -> None:
    rng = np.random.default_rng(1)
    reference = reference_of(spec(), rng.normal(size=(5, 6)).astype(np.float32), 5)
    features = rng.normal(size=(7, 5)).astype(np.float32)
    assert scores(features, reference).tolist() == [score(row, reference) for row in features]


def test_score_does_not_change_the_features_or_the_reference() -> None:
    rng = np.random.default_rng(2)
    reference = reference_of(spec(), rng.normal(size=(5, 6)).astype(np.float32), 5)
    features, offset = rng.normal(size=5).astype(np.float32), reference.offset.copy()
    kept = features.copy()
    assert score(features, reference) == score(features, reference)
    np.testing.assert_array_equal(features, kept)
    np.testing.assert_array_equal(reference.offset, offset)


@pytest.mark.parametrize(("value", "strange"), [(1.9, False), (2.0, False), (2.1, True), (math.inf, True)])
def test_score_above_the_limit_is_strange(value: float, strange: bool) -> None:
    reference = Reference("mahalanobis", np.eye(1, dtype=np.float32), np.zeros(1, np.float32), limit=2.0)
    assert is_strange(value, reference) is strange


@pytest.mark.parametrize("method", ["mahalanobis", "nearest"])
def test_features_that_are_no_numbers_are_strange(method: str) -> None:
    reference = reference_of(spec(method), np.ones((2, 3), np.float32), 2)
    assert is_strange(score(np.array([np.nan, 1.0], np.float32), reference), reference)


def test_features_of_zero_have_no_direction_and_are_strange() -> None:
    reference = reference_of(spec("nearest"), np.ones((2, 3), np.float32), 2)
    assert is_strange(score(np.zeros(2, np.float32), reference), reference)


@pytest.mark.parametrize(
    "values",
    [
        np.ones((2, 4), np.float32),
        np.ones((0, 3), np.float32),
        np.ones(3, np.float32),
        np.ones((2, 3), np.float64),
        np.full((2, 3), np.nan, np.float32),
    ],
)
def test_reference_that_does_not_fit_is_a_model_error(values: np.ndarray) -> None:
    with pytest.raises(ModelError, match="out-of-distribution reference"):
        reference_of(spec(), values, 2)


def test_reference_of_half_the_bytes_gives_nearly_the_same_scores() -> None:
    rng = np.random.default_rng(3)
    whole, features = rng.normal(size=(8, 9)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    one, other = (score(features, reference_of(spec(), values, 8)) for values in (whole, whole.astype(np.float16)))
    assert one == pytest.approx(other, rel=2e-3)
    assert one != other
