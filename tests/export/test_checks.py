"""What the checks of a data set find."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from export.checks import check, doubted_by_network
from export.dataset import load
from tests.export.folders import picture, plates, tones


def test_unreadable_file_is_named_and_left_out(tmp_path: Path) -> None:
    plates(tmp_path)
    (tmp_path / "good" / "broken.png").write_bytes(b"not a picture")
    found = check(load(tmp_path, "inspect"), 1)
    assert [file for file, _ in found.unreadable] == ["good/broken.png"]
    assert len(found.dataset.items) == 24
    assert any("broken.png" in warning for warning in found.warnings)


def test_copy_under_another_name_shares_its_group(tmp_path: Path) -> None:
    plates(tmp_path)
    shutil.copy(tmp_path / "good" / "p000_000.png", tmp_path / "good" / "z.png")
    found = check(load(tmp_path, "inspect"), 1)
    groups = {item.file: item.group for item in found.dataset.items}
    assert found.facts["exact_duplicates"] == 1
    assert groups["good/z.png"] == groups["good/p000_000.png"]


def test_same_file_under_two_labels_is_a_contradiction(tmp_path: Path) -> None:
    plates(tmp_path)
    shutil.copy(tmp_path / "good" / "p000_000.png", tmp_path / "scratch" / "z.png")
    found = check(load(tmp_path, "inspect"), 1)
    assert found.facts["contradicting_duplicates"] == [["good/p000_000.png", "scratch/z.png"]]
    assert any("two labels" in warning for warning in found.warnings)


def test_picture_saved_again_is_nearly_the_same(tmp_path: Path) -> None:
    plates(tmp_path)
    again = picture(1003, scratched=True)
    cv2.imwrite(str(tmp_path / "scratch" / "again.jpg"), again, [cv2.IMWRITE_JPEG_QUALITY, 95])
    found = check(load(tmp_path, "inspect"), 1)
    groups = {item.file: item.group for item in found.dataset.items}
    assert found.facts["near_duplicates"] == 1
    assert groups["scratch/again.jpg"] == groups["scratch/p003_003.png"]


def test_wrong_label_is_doubted_and_right_ones_are_not(tmp_path: Path) -> None:
    plates(tmp_path, count=30)
    for path in (tmp_path / "scratch").glob("*.png"):
        cv2.imwrite(str(path), np.asarray(cv2.imread(str(path))) // 3)
    (tmp_path / "scratch" / "p005_005.png").rename(tmp_path / "good" / "wrong.png")
    found = check(load(tmp_path, "inspect"), 1)
    assert [item["file"] for item in found.facts["doubted_labels"]] == ["good/wrong.png"]


def test_word_of_the_network_takes_the_place_of_the_weaker_one(tmp_path: Path) -> None:
    plates(tmp_path, count=30)
    for path in (tmp_path / "scratch").glob("*.png"):
        cv2.imwrite(str(path), np.asarray(cv2.imread(str(path))) // 3)
    (tmp_path / "scratch" / "p005_005.png").rename(tmp_path / "good" / "wrong.png")
    found = check(load(tmp_path, "inspect"), 1)
    files = [item.file for item in found.dataset.items]
    chances = np.array([[0.95, 0.05] if item.label == "good" else [0.05, 0.95] for item in found.dataset.items])
    chances[files.index("scratch/p007_007.png")] = [0.98, 0.02]
    everything = doubted_by_network(found, np.arange(len(files)), chances)
    assert [item["file"] for item in everything.facts["doubted_labels"]] == ["scratch/p007_007.png"]
    assert [line for line in everything.warnings if "look wrong" in line] == [
        "1 labels look wrong, the first: scratch/p007_007.png"
    ]
    others = np.array([place for place, file in enumerate(files) if file != "good/wrong.png"])
    partly = doubted_by_network(found, others, chances[others])
    assert {item["file"] for item in partly.facts["doubted_labels"]} == {"scratch/p007_007.png", "good/wrong.png"}


def test_nobody_naming_the_parts_is_warned_of(tmp_path: Path) -> None:
    found = check(load(plates(tmp_path), "inspect"), 1)
    assert any("--group" in warning for warning in found.warnings)


def test_sounds_are_measured_by_length_and_rate(tmp_path: Path) -> None:
    found = check(load(tones(tmp_path), "keyword"), 1)
    assert found.facts["sizes"] == {"seconds_min_median_p95_max": [1.0, 1.0, 1.0, 1.0], "rates_hz": {"8000": 16}}
    assert found.linear is not None
    assert found.linear.shape == (16, 2)
