"""The geometry of the small charts."""

import pytest

from cloud.console import charts
from edge.wire.rows import Histogram

REFERENCE = Histogram(edges=[0.0, 1.0, 2.0, 3.0], counts=[0, 10, 80, 10, 0])


def test_trend_without_readings_is_no_chart() -> None:
    assert charts.trend([]) is None


def test_trend_outside_of_the_reference_says_so() -> None:
    assert charts.trend([(0, 1.5), (10, 1.6)], REFERENCE).outside is False  # type: ignore[union-attr]
    assert charts.trend([(0, 1.5), (10, 7.0)], REFERENCE).outside is True  # type: ignore[union-attr]


def test_trend_is_broken_where_readings_are_missing() -> None:
    points = [(t, 1.0) for t in (0, 10, 20, 30, 500, 510)]
    drawn = charts.trend(points)
    assert drawn is not None
    assert drawn.path.count("M") == 2


def test_trend_of_one_reading_is_a_dot() -> None:
    drawn = charts.trend([(5, 0.3)])
    assert drawn is not None
    assert drawn.path == ""
    assert len(drawn.dots) >= 1


def test_trend_and_band_stay_within_the_box() -> None:
    drawn = charts.trend([(t, (-1) ** t * 100.0) for t in range(9)], REFERENCE)
    assert drawn is not None
    assert drawn.band_top is not None and drawn.band_height is not None
    assert 0 <= drawn.band_top <= drawn.band_top + drawn.band_height <= charts.HEIGHT
    numbers = [float(n) for word in drawn.path.replace("M", " ").replace("L", " ").split() for n in [word]]
    assert all(0 <= x <= charts.WIDTH for x in numbers[::2])
    assert all(0 <= y <= charts.HEIGHT for y in numbers[1::2])


def test_distributions_of_other_edges_are_not_compared() -> None:
    assert charts.distribution(REFERENCE, Histogram(edges=[0.0, 1.0], counts=[1, 1, 1])) is None
    assert charts.distribution(REFERENCE, Histogram(edges=REFERENCE.edges, counts=[0] * 5)) is None


def test_distribution_leaves_out_bins_that_neither_uses() -> None:
    drawn = charts.distribution(REFERENCE, Histogram(edges=REFERENCE.edges, counts=[0, 0, 0, 5, 0]))
    assert drawn is not None
    assert len(drawn.bars) == 3


def test_stack_gives_each_count_its_share_and_fills_the_bar() -> None:
    parts = charts.stack({"pass": 960, "divert": 39, "defer": 1})
    assert [part.name for part in parts] == ["pass", "divert", "defer"]
    assert parts[-1].x + parts[-1].width == pytest.approx(100, abs=0.1)
    assert parts[-1].width >= 0.3, "one in a thousand must stay visible"
    assert charts.stack({"pass": 0}) == []


def test_interval_holds_margin_and_zero_in_order() -> None:
    drawn = charts.interval(-0.02, 0.31, 0.12, 0.05)
    assert drawn.zero is not None and drawn.margin is not None and drawn.point is not None
    assert 0 < drawn.low < drawn.zero < drawn.margin < drawn.point < drawn.high < 100
