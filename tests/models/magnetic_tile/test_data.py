"""Reading tiles: what is one part, folds that no part straddles, masks that lie on their picture."""

from pathlib import Path

import cv2
import numpy as np

from models.magnetic_tile.augment import other_look
from models.magnetic_tile.data import INPUT, folds_of, load_photos, number_of, parts_of


def test_name_of_a_picture_gives_its_number() -> None:
    assert number_of("exp1_num_108719.jpg") == 108719


def test_neighbouring_numbers_are_one_part() -> None:
    assert parts_of([100, 120, 150, 349, 2000, 2010]) == [0, 0, 0, 0, 1, 1]


def test_folds_are_ranges_and_no_part_straddles_two() -> None:
    numbers = [1000 * tile + 20 * light for tile in range(30) for light in range(6)]
    folds, parts = folds_of(numbers), parts_of(numbers)
    assert folds == sorted(folds)
    assert set(folds) == {0, 1, 2, 3, 4}
    assert len(set(zip(parts, folds, strict=True))) == 30


def test_picture_and_mask_are_letterboxed_alike(tmp_path: Path) -> None:
    _write(tmp_path)
    good, bad = load_photos(tmp_path)
    assert (good.defective, bad.defective) == (False, True)
    assert bad.light == 3
    assert bad.picture.shape == bad.mask.shape == (INPUT.height, INPUT.width)
    left, top, right, bottom = bad.inside
    assert (right - left, bottom - top) == (400, 400)
    assert bad.picture[:, : left - 1].max() == 0
    assert bad.picture[bad.mask > 0].mean() < 60 < bad.picture[200, left + 5]
    assert good.mask.max() == 0


def test_same_seed_gives_the_same_other_look(tmp_path: Path) -> None:
    _write(tmp_path)
    good, _ = load_photos(tmp_path)
    first, second = (other_look(good, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_some_good_tiles_get_a_defect_with_its_mask_and_defective_ones_keep_theirs(tmp_path: Path) -> None:
    _write(tmp_path)
    good, bad = load_photos(tmp_path)
    rng = np.random.default_rng(1)
    made = [bool(other_look(good, rng)[1].any()) for _ in range(20)]
    assert 1 < sum(made) < 15
    for _ in range(5):
        picture, mask = other_look(bad, rng)
        assert picture[mask > 0].mean() < picture[picture > 0].mean() - 20


def _write(folder: Path) -> None:
    """A plain tile, and one with a dark spot."""
    for kind in ("free", "blowhole"):
        (folder / kind).mkdir()
    plain = np.full((200, 200, 3), 120, np.uint8)
    spotted, mask = plain.copy(), np.zeros((200, 200), np.uint8)
    for picture, value in ((spotted, (20, 20, 20)), (mask, (255,))):
        cv2.circle(picture, (60, 150), 12, value, -1)
    cv2.imwrite(str(folder / "free" / "exp1_num_100.jpg"), plain)
    cv2.imwrite(str(folder / "blowhole" / "exp3_num_9000.jpg"), spotted)
    cv2.imwrite(str(folder / "blowhole" / "exp3_num_9000.mask.png"), mask)
