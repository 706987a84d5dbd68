"""Drift: the stated false-alarm rate holds, and a dimmed light is seen."""

import random

import pytest

from edge.drift import FALSE_ALARM_RATE, WINDOW, DriftWatch, homogeneity_p
from edge.wire.rows import Histogram

EDGES = [round(0.1 * i, 1) for i in range(1, 10)]


def reference(samples: list[float]) -> Histogram:
    counts = [0] * (len(EDGES) + 1)
    for value in samples:
        counts[sum(value >= edge for edge in EDGES)] += 1
    return Histogram(edges=EDGES, counts=counts)


def normal_light(rng: random.Random, n: int) -> list[float]:
    return [min(0.999, max(0.0, rng.gauss(0.55, 0.12))) for _ in range(n)]


def test_same_light_raises_alarms_within_the_stated_rate() -> None:
    seed = 20260101
    print(f"seed {seed}")
    rng = random.Random(seed)
    compared = differing = 0
    for _ in range(400):
        known = reference(normal_light(rng, 600))
        watched = reference(normal_light(rng, WINDOW))
        compared += 1
        differing += homogeneity_p(watched.counts, known.counts) < 0.01
    # 0.01 a comparison: of 400, four are expected and more than 14 would come by chance once in 30,000 times.
    assert differing <= 14, f"{differing} of {compared} at a rate of 0.01"


def test_dimmed_light_is_told_once_after_two_windows() -> None:
    rng = random.Random(7)
    watch = DriftWatch({"brightness": reference(normal_light(rng, 600))})
    shifts = [s for value in normal_light(rng, 2 * WINDOW) for s in watch.add({"brightness": value * 0.5})]
    assert [(s.metric, s.raised) for s in shifts] == [("brightness", True)]
    assert shifts[0].p_value < FALSE_ALARM_RATE
    assert shifts[0].window_median < shifts[0].reference_median
    assert watch.alarmed == ["brightness"]


def test_light_that_comes_back_clears_the_alarm() -> None:
    rng = random.Random(8)
    watch = DriftWatch({"brightness": reference(normal_light(rng, 600))})
    for value in normal_light(rng, 2 * WINDOW):
        watch.add({"brightness": value * 0.5})
    shifts = [s for value in normal_light(rng, 2 * WINDOW) for s in watch.add({"brightness": value})]
    assert [(s.metric, s.raised) for s in shifts] == [("brightness", False)]
    assert watch.alarmed == []


def test_one_odd_window_raises_nothing() -> None:
    rng = random.Random(9)
    watch = DriftWatch({"brightness": reference(normal_light(rng, 600))})
    stream = [v * 0.5 for v in normal_light(rng, WINDOW)] + normal_light(rng, 5 * WINDOW)
    assert [s for value in stream for s in watch.add({"brightness": value})] == []


def test_metric_without_a_reference_is_left_alone() -> None:
    watch = DriftWatch({})
    assert [watch.add({"brightness": 0.1}) for _ in range(3 * WINDOW)] == [[]] * (3 * WINDOW)


@pytest.mark.parametrize(("sample", "known"), [([0, 0], [5, 5]), ([5, 5], [0, 0]), ([9, 0, 0], [90, 0, 0])])
def test_counts_that_cannot_be_told_apart_give_no_evidence(sample: list[int], known: list[int]) -> None:
    assert homogeneity_p(sample, known) == 1.0


def test_p_value_agrees_with_the_exact_distribution() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    sample, known = [12, 20, 25, 7], [150, 170, 160, 120]
    expected = scipy_stats.chi2_contingency([sample, known]).pvalue
    assert homogeneity_p(sample, known) == pytest.approx(expected, rel=0.05)
