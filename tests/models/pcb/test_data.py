"""Reading and changing scans: pairs and boards, boxes that move along, kinds that swap when inverted."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.pcb import augment
from models.pcb.augment import IGNORE, Crops
from models.pcb.data import SIDE, Scan, board_of, load_scans, pair_of, read_boxes
from models.pcb.figures import Scored, interval, table
from models.pcb.network import STRIDE


def test_scans_are_read_in_pairs_with_boxes_in_network_pixels(tmp_path: Path) -> None:
    picture = np.full((SIDE // 2, SIDE // 2, 3), 255, np.uint8)
    for folder in ("good", "defect"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / "00041_00041007.jpg"), picture)
    (tmp_path / "defect" / "00041_00041007.boxes.txt").write_text("10 20 30 50 6\n\n")
    clean, defective = load_scans(tmp_path)
    assert (clean.defective, defective.defective) == (False, True)
    assert clean.picture.shape == (SIDE, SIDE)
    assert (len(clean.boxes), list(defective.kinds)) == (0, [6])
    np.testing.assert_allclose(defective.boxes, [[20, 40, 60, 100]])


def test_name_gives_board_and_pair() -> None:
    assert board_of("some/where/12100_12100007.jpg") == "12100"
    assert pair_of("12100_12100007.jpg") == "12100_12100007"


def test_file_without_boxes_gives_none(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    assert read_boxes(tmp_path / "empty.txt").shape == (0, 5)


def test_same_seed_draws_the_same_crops() -> None:
    first, second = (Crops(_pair(), np.random.default_rng(3)).draw() for _ in range(2))
    np.testing.assert_array_equal(first.picture, second.picture)
    np.testing.assert_array_equal(first.truth, second.truth)


def test_truth_stays_on_the_defect_wherever_the_crop_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_PRINTED", 0.0)
    monkeypatch.setattr(augment, "_INVERTED", 0.0)
    crops = [crop for crop in _drawn(80) if (crop.truth == 5).sum() >= 9]
    assert len(crops) > 10
    for crop in crops:
        pixels = np.kron(crop.truth, np.ones((STRIDE, STRIDE), np.int64))
        assert crop.picture[pixels == 5].mean() < crop.picture[pixels == 0].mean() - 60


def test_inverting_makes_spurious_copper_a_pin_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_PRINTED", 0.0)
    monkeypatch.setattr(augment, "_INVERTED", 1.0)
    kinds = {int(kind) for crop in _drawn(40) for kind in np.unique(crop.truth)}
    assert kinds == {IGNORE, 0, 6}


def test_marks_never_touch_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_INVERTED", 0.0)
    monkeypatch.setattr(augment, "other_light", lambda picture, rng: picture)
    for printed in (0.0, 1.0):
        monkeypatch.setattr(augment, "_PRINTED", printed)
        dark = [np.mean(crop.picture[np.kron(crop.truth, np.ones((8, 8))) == 0] < 128) for crop in _drawn(60)]
        assert (max(dark) > 0.02) == bool(printed), "marks are drawn where there is no defect"


def test_figures_of_perfect_scores_are_perfect_and_say_how_sure_that_is() -> None:
    clean, defective = _pair()
    logits = np.zeros((2, 7), np.float32)
    logits[0, 1:], logits[1, 5] = -6, 6
    scored = Scored("b", [clean, defective], logits, np.array([[5, 5]], np.intp))
    figures = table([scored])["all"]
    assert (figures["auroc"], figures["named_kind_present"]) == (1.0, 1.0)
    assert figures["boxes"]["spurious_copper"]["found"] == 1.0
    assert list(scored.labels()) == [0, 5]
    assert interval(0, 100)[1] == pytest.approx(0.0362, abs=1e-4)


def _drawn(count: int) -> list[augment.Crop]:
    crops = Crops(_pair(), np.random.default_rng(5))
    return [crops.draw() for _ in range(count)]


def _pair() -> list[Scan]:
    """A blank scan, and one with a dark spot in the middle."""
    blank = np.full((SIDE, SIDE), 255, np.uint8)
    spotted = blank.copy()
    spotted[300:340, 300:340] = 0
    box = np.array([[292, 292, 348, 348]], np.float32)
    none = np.zeros((0, 4), np.float32)
    return [
        Scan("b_1.jpg", False, blank, none, np.zeros(0, np.intp)),
        Scan("b_1.jpg", True, spotted, box, np.array([5], np.intp)),
    ]
