"""Where the network looked, on the picture as it came."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.where import peaks
from edge.wire.manifest import ImageInput

STRETCH = ImageInput(width=64, height=48)
LETTERBOX = ImageInput(width=64, height=64, resize="letterbox")


def heat(*spots: tuple[int, int, float], rows: int = 12, columns: int = 16) -> NDArray[np.float32]:
    made = np.zeros((rows, columns), np.float32)
    for row, column, value in spots:
        made[row, column] = value
    return made


def test_strongest_place_comes_first_in_shares_of_the_picture() -> None:
    found = peaks(heat((2, 4, 3.0), (9, 12, 5.0)), STRETCH, 640, 480)
    assert [(peak.x, peak.y, peak.value) for peak in found] == [(0.7812, 0.7917, 5.0), (0.2812, 0.2083, 3.0)]


def test_at_most_three_places_are_told_and_none_that_is_weak() -> None:
    many = heat((1, 1, 5.0), (1, 8, 4.0), (6, 1, 4.5), (6, 8, 4.9), (10, 14, 2.4))
    assert [peak.value for peak in peaks(many, STRETCH, 640, 480)] == [5.0, 4.9, 4.5]
    assert [peak.value for peak in peaks(heat((1, 1, 5.0), (10, 14, 2.4)), STRETCH, 640, 480)] == [5.0]


def test_neighbouring_cells_are_one_place() -> None:
    assert len(peaks(heat((5, 5, 5.0), (5, 6, 4.8), (6, 6, 4.7), (4, 4, 4.6)), STRETCH, 640, 480)) == 1


@pytest.mark.parametrize(
    ("width", "height", "cell", "x", "y"),
    [
        # A wide picture: 16 rows of 64 are border above and below.
        (640, 320, (8, 4), 0.2812, 0.5625),
        (640, 320, (4, 0), 0.0312, 0.0625),
        # A tall one: border left and right.
        (320, 640, (4, 8), 0.5625, 0.2812),
        (640, 640, (0, 15), 0.9688, 0.0312),
    ],
)
def test_border_of_a_letterbox_is_undone(width: int, height: int, cell: tuple[int, int], x: float, y: float) -> None:
    (found,) = peaks(heat((*cell, 5.0), rows=16, columns=16), LETTERBOX, width, height)
    assert (found.x, found.y) == (x, y)


def test_place_on_the_border_is_not_on_the_picture() -> None:
    found = peaks(heat((1, 8, 9.0), (8, 4, 7.0), rows=16, columns=16), LETTERBOX, 640, 320)
    assert [peak.value for peak in found] == [7.0]


def test_place_is_that_of_the_preprocessing_that_devices_do() -> None:
    from edge.preprocess import resize

    picture = np.zeros((300, 700, 3), np.uint8)
    picture[200:210, 500:510] = 255
    for spec in (LETTERBOX, STRETCH):
        small = resize(picture, spec.width, spec.height, keep_aspect=spec.resize == "letterbox")
        (found,) = peaks(small[:, :, 0].astype(np.float32), spec, 700, 300)
        assert found.x == pytest.approx(505 / 700, abs=0.02)
        assert found.y == pytest.approx(205 / 300, abs=0.03)


def test_even_map_gives_no_place() -> None:
    assert peaks(np.ones((3, 3), np.float32), STRETCH, 640, 480) == []


def test_map_with_numbers_that_are_none_gives_no_place() -> None:
    assert peaks(np.full((3, 3), np.nan, np.float32), STRETCH, 640, 480) == []
