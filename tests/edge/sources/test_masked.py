"""Masked parts of a picture are gone for everything that comes after."""

import cv2
import numpy as np
import pytest

from edge.errors import ConfigError
from edge.imaging import decode
from edge.masks import Mask
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


@pytest.mark.parametrize("values", [{"x": 0.6, "width": 0.5}, {"width": 0}, {"how": "smear"}])
def test_mask_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        read_settings(Mask, {"x": 0, "y": 0, "width": 0.5, "height": 1, **values}, where="mask")
