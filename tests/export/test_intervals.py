"""Intervals that take groups for what they are."""

import numpy as np
import pytest
from scipy.stats import binom

from export.intervals import clopper_pearson, effective_size, share


def test_interval_of_independent_examples_is_clopper_and_pearsons() -> None:
    found = share(np.array([True] * 8 + [False] * 2), np.arange(10))
    assert (found.low, found.high) == pytest.approx((0.4439, 0.9748), abs=1e-3)  # R: binom.test(8, 10)


def test_nothing_wrong_counts_groups_and_not_examples() -> None:
    alone = share(np.ones(60, bool), np.arange(60))
    together = share(np.ones(60, bool), np.repeat(np.arange(6), 10))
    assert alone.low > 0.9
    assert together.low == pytest.approx(0.025 ** (1 / 6), abs=1e-6)


def test_groups_that_err_together_widen_the_interval() -> None:
    hits = np.repeat([True, True, True, False], 10)
    assert effective_size(hits, np.repeat(np.arange(4), 10)) == 4
    assert effective_size(hits, np.arange(40)) == pytest.approx(40, rel=0.05)


def test_interval_covers_the_truth_as_often_as_it_says_for_grouped_data() -> None:
    chance = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        rates = chance.beta(8, 2, 30)  # groups differ; the mean is 0.8
        hits = np.concatenate([chance.random(12) < rate for rate in rates])
        found = share(hits, np.repeat(np.arange(30), 12))
        covered += found.low <= 0.8 <= found.high
    assert covered >= binom.ppf(0.001, 400, 0.95)


def test_no_examples_say_nothing() -> None:
    found = share(np.zeros(0, bool), np.zeros(0, int))
    assert (found.value, found.low, found.high) == (None, 0.0, 1.0)
    assert clopper_pearson(0.0, 10, 0.05)[0] == 0.0
