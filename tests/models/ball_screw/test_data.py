"""Reading and changing photographs: splits by position, masks that move with their picture."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.ball_screw.augment import SIDE, Crops
from models.ball_screw.data import (
    HELD_OUT,
    INPUT,
    OTHER_MACHINES,
    Photo,
    load_photos,
    position_of,
    time_of,
    track_cells,
)


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("01_200828110055_305000_090_crop_2.jpg", "305000_090"),
        ("some/folder/01_200916071520_477500_315_crop_1.jpg", "477500_315"),
        ("KGT1-S-060-A02_crop_0.jpg", OTHER_MACHINES),
    ],
)
def test_name_of_a_picture_gives_its_position(name: str, position: str) -> None:
    assert position_of(name) == position


def test_name_of_a_picture_gives_its_time() -> None:
    assert time_of("01_200828110055_305000_090_crop_2.jpg") == "200828110055"
    assert time_of("KGT1-S-060-A02_crop_0.jpg") == ""


def test_pictures_are_read_with_their_outlines_in_network_pixels(tmp_path: Path) -> None:
    for label in ("good", "pitting"):
        (tmp_path / label).mkdir()
    picture = np.full((208, 512, 3), 120, np.uint8)
    cv2.imwrite(str(tmp_path / "good" / f"01_1_{HELD_OUT}_crop_1.jpg"), picture)
    cv2.imwrite(str(tmp_path / "pitting" / f"01_2_{HELD_OUT}_crop_1.jpg"), picture)
    outline = {"polygons": [{"label": "Pitting", "points": [[100, 50], [110, 50], [110, 60]]}]}
    (tmp_path / "polygons.json").write_text(json.dumps({f"01_2_{HELD_OUT}_crop_1.jpg": outline}))
    good, pitted = load_photos(tmp_path)
    assert (good.pitted, pitted.pitted) == (False, True)
    assert good.picture.shape == (INPUT.height, INPUT.width, 3)
    assert not good.pits
    np.testing.assert_allclose(pitted.pits[0], [[200, 100], [220, 100], [220, 120]])


def test_same_seed_draws_the_same_crops() -> None:
    first, second = (Crops(_photos(), np.random.default_rng(3)).draw() for _ in range(2))
    np.testing.assert_array_equal(first.picture, second.picture)
    np.testing.assert_array_equal(first.mask, second.mask)


def test_mask_stays_on_the_dark_pit_wherever_the_crop_goes() -> None:
    crops = Crops(_photos(), np.random.default_rng(5))
    with_pit = [crop for crop in (crops.draw() for _ in range(60)) if (crop.mask > 0.9).sum() > 60]
    assert len(with_pit) > 10
    for crop in with_pit:
        assert crop.picture.shape == (SIDE, SIDE, 3)
        gray = crop.picture.mean(2)
        assert gray[crop.mask > 0.9].mean() < gray[crop.mask < 0.01].mean() - 5


def test_crop_with_a_pasted_pit_names_both_positions() -> None:
    crops = Crops(_photos(), np.random.default_rng(7))
    drawn = [crop for crop in (crops.draw() for _ in range(60)) if crop.positions >= {"1"}]
    assert {"1", "2"} in [set(crop.positions) for crop in drawn]
    assert all("2" in crop.positions for crop in drawn if crop.mask.any()), "only position 2 has a pit to give"


def test_track_holds_the_middle_and_leaves_out_the_corners() -> None:
    cells = track_cells(16)
    assert cells.shape == (INPUT.height // 16, INPUT.width // 16)
    assert cells[12, 40]
    assert not cells[-1, -1]
    assert not cells[0, 0]


def _photos() -> list[Photo]:
    """A good picture, and one with a dark pit in the middle."""
    plain = np.full((INPUT.height, INPUT.width, 3), 150, np.uint8)
    pitted = plain.copy()
    outline = np.array([[500, 200], [540, 200], [540, 230], [500, 230]], np.float32)
    pitted[200:231, 500:541] = 20
    return [Photo("a", "1", False, plain, []), Photo("b", "2", True, pitted, [outline])]
