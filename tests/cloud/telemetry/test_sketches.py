"""Percentiles of merged sketches hold the true one within their stated bounds."""

import math
import random
from bisect import bisect_right

import pytest

from cloud.telemetry.sketches import Bins, Mixture, merged, sparse
from edge.wire.rows import LATENCY_EDGES_MS, UNIT_EDGES


def _sketch(edges: list[float], values: list[float]) -> tuple[list[float], Bins]:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return edges, sparse(counts)


def _true(values: list[float], share: float) -> float:
    return sorted(values)[max(math.ceil(share * len(values) - 1e-9), 1) - 1]


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_percentile_of_merged_sketches_lies_within_its_bounds(rng: random.Random, others: int) -> None:
    for _ in range(30):
        layouts = [LATENCY_EDGES_MS, *(sorted(rng.uniform(0, 60) for _ in range(12)) for _ in range(others))]
        values, mixture = [], Mixture()
        for part in range(rng.randint(1, 12)):
            some = [rng.lognormvariate(2, 1) for _ in range(rng.randint(1, 80))]
            values += some
            mixture.update(merged([_sketch(layouts[part % len(layouts)], some)]))
        for share in (0.01, 0.25, 0.5, 0.95, 0.99, 1.0):
            true, found = _true(values, share), mixture.percentile(share, floor=0.0)
            assert found is not None
            assert found.low is not None
            assert found.low <= true
            assert found.high is None or true < found.high
            assert found.low <= found.value <= (found.high or math.inf)


def test_percentile_of_a_latency_is_known_within_19_per_cent(rng: random.Random) -> None:
    values = [rng.uniform(0.2, 9000) for _ in range(5000)]
    mixture = merged([_sketch(LATENCY_EDGES_MS, values[i::7]) for i in range(7)])
    for share in (0.05, 0.5, 0.95, 0.99):
        found = mixture.percentile(share)
        assert found is not None
        assert abs(found.value - _true(values, share)) <= 0.19 * _true(values, share)


def test_order_of_merging_changes_nothing(rng: random.Random) -> None:
    parts = [_sketch(UNIT_EDGES, [rng.random() for _ in range(20)]) for _ in range(20)]
    forward = merged(parts)
    rng.shuffle(parts)
    assert merged(parts) == forward


def test_open_bins_say_that_they_are_open() -> None:
    mixture = merged([_sketch([1.0, 2.0], [0.5, 5.0])])
    lowest, highest = mixture.percentile(0.1), mixture.percentile(1.0)
    assert lowest is not None
    assert highest is not None
    assert (lowest.low, lowest.high, highest.low, highest.high) == (None, 1.0, 2.0, None)
    assert Mixture().percentile(0.5) is None
