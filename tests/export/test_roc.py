"""The area by ranks is scikit-learn's, with ties, with weights, and with nothing to rank."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from export.roc import Ranked, auroc


@pytest.mark.parametrize("digits", [1, 9])
def test_area_is_that_of_scikit_learn_with_and_without_ties(digits: int) -> None:
    rng = np.random.default_rng(3)
    event = rng.random(200) < 0.3
    score = (rng.normal(0, 1, 200) + event).round(digits)
    assert auroc(event, score) == pytest.approx(roc_auc_score(event, score), abs=1e-12)
    times = rng.integers(0, 4, 200)
    assert Ranked(event, score).area(times) == pytest.approx(
        roc_auc_score(event, score, sample_weight=times), abs=1e-12
    )


def test_one_side_alone_has_no_area() -> None:
    assert math.isnan(auroc(np.ones(5, np.bool_), np.arange(5.0)))
    assert math.isnan(auroc(np.zeros(0, np.bool_), np.zeros(0)))
