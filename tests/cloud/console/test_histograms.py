"""What histograms say."""

import random

import pytest

from cloud.console import histograms
from edge.wire.rows import LATENCY_EDGES_MS, Histogram
from tests.cloud.console.plant import histogram


def test_quantile_of_many_values_is_within_one_bin_of_the_true_one() -> None:
    rng = random.Random(5)
    values = sorted(rng.lognormvariate(1.2, 0.6) for _ in range(4000))
    counted = histogram(LATENCY_EDGES_MS, values)
    for share in (0.05, 0.5, 0.95, 0.99):
        found = histograms.quantile(counted, share)
        true = values[int(share * len(values))]
        assert found is not None
        assert true / 1.2 < found < true * 1.2


def test_quantile_in_an_open_bin_lies_at_its_edge() -> None:
    outside = Histogram(edges=[1.0, 2.0], counts=[3, 0, 5])
    assert histograms.quantile(outside, 0.1) == 1.0
    assert histograms.quantile(outside, 0.9) == 2.0


def test_empty_histogram_has_no_quantile() -> None:
    empty = Histogram(edges=[1.0], counts=[0, 0])
    assert histograms.quantile(empty, 0.5) is None


def test_sum_leaves_out_histograms_of_other_edges() -> None:
    parts = [
        Histogram(edges=[1.0], counts=[1, 2]),
        Histogram(edges=[9.0], counts=[50, 50]),
        Histogram(edges=[1.0], counts=[3, 4]),
    ]
    assert histograms.total_of(parts) == Histogram(edges=[1.0], counts=[4, 6])
    assert histograms.total_of([]) is None


@pytest.mark.parametrize(
    "document", [None, "x", {}, {"edges": [1.0], "counts": [1]}, {"edges": [2.0, 1.0], "counts": [1, 1, 1]}]
)
def test_document_that_is_no_histogram_is_read_as_none(document: object) -> None:
    assert histograms.read(document) is None
