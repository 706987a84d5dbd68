"""Gate limits and reference histograms from reference inputs."""

import numpy as np
import pytest

from edge.gate import outside
from export.reference import gate_limits, histogram, histograms, measure, quantile_edges


def pictures(count: int, brightness: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    levels = rng.normal(brightness, 8, count)
    return [np.clip(rng.normal(level, 20, (60, 80, 3)), 0, 255).astype(np.uint8) for level in levels]


def test_reference_pictures_lie_within_their_own_gate_and_dark_ones_without() -> None:
    limits = gate_limits(measure(pictures(400, 120, seed=1)))
    fresh = measure(pictures(200, 120, seed=2))
    refused = [
        outside({name: float(values[i]) for name, values in fresh.items()}, limits) is not None for i in range(200)
    ]
    assert np.mean(refused) <= 0.01
    dark = measure(pictures(5, 20, seed=3))
    for i in range(5):
        problem = outside({name: float(values[i]) for name, values in dark.items()}, limits)
        assert problem is not None
        assert "brightness" in problem


def test_sounds_are_limited_by_level_and_clipping_only() -> None:
    rng = np.random.default_rng(4)
    sounds = [((rng.normal(0, 0.1, 8000)).astype(np.float32), 8000) for _ in range(50)]
    limits = gate_limits(measure(sounds))
    assert set(limits) == {"level_dbfs", "clipping"}
    assert limits["clipping"].max == 0.05, "single clipped samples do no harm"


def test_histogram_bins_hold_about_as_much_each_and_add_up_to_the_reference() -> None:
    values = np.random.default_rng(5).lognormal(0, 1, 1200)
    made = histograms({"sharpness": values})["sharpness"]
    assert made.total == 1200
    assert len(made.counts) == 12
    assert max(made.counts) - min(made.counts) <= 2


def test_a_value_on_an_edge_counts_above_it_as_on_devices() -> None:
    assert histogram(np.array([0.5, 1.0, 1.5, 2.0]), [1.0, 2.0]).counts == [1, 2, 1]


def test_repeated_values_give_fewer_edges_rather_than_equal_ones() -> None:
    edges = quantile_edges(np.array([0.0] * 90 + [1.0] * 10))
    assert edges == sorted(set(edges))
    assert len(edges) < 11


def test_no_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one raw input"):
        measure([])
