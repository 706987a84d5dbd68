"""Masked parts of a picture are gone for everything that comes after."""

import cv2
import numpy as np
import pytest

from edge.errors import ConfigError
from edge.imaging import decode
from edge.masks import Mask, Region
from edge.settings import read_settings
from edge.sources.interface import Telling
from edge.sources.masked import CELLS, MaskedSource, masked
from edge.values import Window
from tests.seams.fakes import ScriptedSource

RNG = np.random.default_rng(4)
PICTURE = RNG.integers(1, 255, (60, 80, 3), dtype=np.uint8)
RIGHT_HALF = Mask(x=0.5, y=0, width=0.5, height=1)


def window(data: "np.ndarray | None" = PICTURE) -> Window:
    return Window("test", "a.jpg", "a", "image/jpeg", data, b"the bytes as they came", problem=None)


def test_black_mask_leaves_nothing_and_the_rest_untouched() -> None:
    got = masked(window(), [RIGHT_HALF]).data
    assert got is not None
    assert not got[:, 40:].any()
    assert np.array_equal(got[:, :40], PICTURE[:, :40])
    assert PICTURE[:, 40:].all(), "the source's own picture is not touched"


def test_blurred_mask_keeps_a_few_shades_only() -> None:
    writing = np.full((60, 80, 3), 255, np.uint8)
    cv2.putText(writing, "Ada 1815", (2, 35), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
    got = masked(window(writing), [Mask(x=0, y=0, width=1, height=1, how="blur")]).data
    assert got is not None
    again = cv2.resize(cv2.resize(got, (CELLS, CELLS), interpolation=cv2.INTER_AREA), (80, 60))
    assert np.abs(again.astype(int) - got).mean() < 3
    assert cv2.Laplacian(got, cv2.CV_64F).var() < cv2.Laplacian(writing, cv2.CV_64F).var() / 100


def test_mask_reaches_outwards_to_whole_pixels() -> None:
    got = masked(window(), [Mask(x=0.101, y=0.101, width=0.2, height=0.2)]).data
    assert got is not None
    assert not got[6:19, 8:25].any()


def test_crop_leaves_its_part_only_and_no_memory_of_the_rest() -> None:
    got = masked(window(), [], Region(x=0.25, y=0.5, width=0.5, height=0.5))
    assert got.data is not None and got.encode is not None
    assert np.array_equal(got.data, PICTURE[30:, 20:60])
    assert got.data.base is None, "it is no view of the whole picture"
    kept, media_type = decode(got.encode())
    assert media_type == "image/png" and np.array_equal(kept, got.data) and got.raw is None


def test_masks_are_where_they_were_in_the_picture_as_it_came() -> None:
    got = masked(window(), [RIGHT_HALF], Region(x=0.25, y=0, width=0.5, height=1)).data
    assert got is not None and got.shape == (60, 40, 3)
    assert not got[:, 20:].any() and np.array_equal(got[:, :20], PICTURE[:, 20:40])


@pytest.mark.parametrize(
    ("region", "rows", "columns"),
    [
        ((0.101, 0.101, 0.2, 0.2), (7, 18), (9, 24)),
        ((0.1, 0.1, 0.3, 0.3), (6, 24), (8, 32)),
        ((0, 0, 1, 1), (0, 60), (0, 80)),
        ((0.999, 0.999, 0.0001, 0.0001), (59, 60), (79, 80)),
    ],
    ids=["inwards", "exact", "whole", "too small"],
)
def test_crop_reaches_inwards_to_whole_pixels(
    region: tuple[float, ...], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    x, y, width, height = region
    got = masked(window(), [], Region(x=x, y=y, width=width, height=height)).data
    assert got is not None and np.array_equal(got, PICTURE[slice(*rows), slice(*columns)])


def test_bytes_as_they_came_are_gone_and_what_is_kept_is_the_masked_picture() -> None:
    got = masked(window(), [RIGHT_HALF])
    assert got.raw is None and got.encode is not None
    kept, media_type = decode(got.encode())
    assert media_type == got.media_type == "image/png"
    assert got.data is not None and np.array_equal(kept, got.data)


def test_picture_that_cannot_be_decoded_is_not_kept() -> None:
    got = masked(window(None), [RIGHT_HALF])
    assert got.raw is None and got.encode is None


def test_source_keeps_all_its_other_sides() -> None:
    class Camera(ScriptedSource):
        problem = "unplugged"

        def news(self) -> list[object]:
            return ["news"]

    source = MaskedSource(Camera([window()]), [RIGHT_HALF])
    assert isinstance(source, Telling)
    assert (source.problem, source.news()) == ("unplugged", ["news"])
    read = source.read(0)
    assert read is not None and read.data is not None and not read.data[:, 40:].any()
    assert source.exhausted


@pytest.mark.parametrize("values", [{"x": 0.6, "width": 0.5}, {"width": 0}, {"how": "black"}])
def test_crop_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        read_settings(Region, {"x": 0, "y": 0, "width": 0.5, "height": 1, **values}, where="crop")


@pytest.mark.parametrize("values", [{"x": 0.6, "width": 0.5}, {"width": 0}, {"how": "smear"}])
def test_mask_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        read_settings(Mask, {"x": 0, "y": 0, "width": 0.5, "height": 1, **values}, where="mask")
