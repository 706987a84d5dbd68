"""What a folder holds, as a person lays it out."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.errors import ConfigError
from export.dataset import load
from tests.export.folders import plates, tones


def test_class_folders_become_labels_with_good_first(tmp_path: Path) -> None:
    found = load(plates(tmp_path), "inspect")
    assert found.labels == ["good", "scratch"]
    assert found.counts == {"good": 12, "scratch": 12}
    assert found.unit == "picture"
    assert not found.grouped


def test_without_a_good_class_the_hint_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(plates(tmp_path, good="free"), "inspect")
    assert "--good free" in error.value.hint


def test_class_named_by_good_is_called_good(tmp_path: Path) -> None:
    assert load(plates(tmp_path, good="free"), "inspect", good="free").labels == ["good", "scratch"]


def test_pattern_over_names_makes_groups(tmp_path: Path) -> None:
    found = load(plates(tmp_path, per_part=3), "inspect", group=r"^(p\d+)_")
    assert found.grouped
    assert len({item.group for item in found.items}) == 4


def test_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="matches no file name"):
        load(plates(tmp_path), "inspect", group=r"^board")


def test_metadata_gives_groups_splits_and_slices(tmp_path: Path) -> None:
    plates(tmp_path, count=4)
    rows = [
        f"{label}/p{n:03d}_{n:03d}.png,b{n % 2},{'test' if n == 3 else 'train'},north"
        for label in ("good", "scratch")
        for n in range(4)
    ]
    (tmp_path / "metadata.csv").write_text("file,board,split,site\n" + "\n".join(rows))
    found = load(tmp_path, "inspect")
    assert found.unit == "board"
    assert {item.group for item in found.items} == {"b0", "b1"}
    assert sum(item.split == "test" for item in found.items) == 2
    assert found.items[0].slices == {"board": "b0", "site": "north"}


def test_metadata_may_name_the_labels_without_folders(tmp_path: Path) -> None:
    for n in range(8):
        cv2.imwrite(str(tmp_path / f"{n}.png"), np.full((20, 20, 3), 9 * n, np.uint8))
    rows = [f"{n}.png,{'good' if n < 4 else 'bad'}" for n in range(8)]
    (tmp_path / "metadata.csv").write_text("file,label\n" + "\n".join(rows))
    assert load(tmp_path, "inspect").counts == {"good": 4, "bad": 4}


def test_metadata_with_missing_files_names_the_first(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file,label\ngone.png,good\n")
    with pytest.raises(ConfigError, match=r"gone\.png"):
        load(tmp_path, "inspect")


def test_train_and_test_folders_become_the_split(tmp_path: Path) -> None:
    plates(tmp_path / "train", count=4)
    plates(tmp_path / "test", count=4)
    found = load(tmp_path, "inspect")
    assert found.counts == {"good": 8, "scratch": 8}
    assert {item.split for item in found.items} == {"train", "test"}


def test_masks_belong_to_their_picture_and_are_none_themselves(tmp_path: Path) -> None:
    plates(tmp_path, count=4)
    cv2.imwrite(str(tmp_path / "scratch" / "p000_000.mask.png"), np.zeros((64, 64), np.uint8))
    found = load(tmp_path, "inspect")
    assert len(found.items) == 8
    assert [item.file for item in found.items if item.mask] == ["scratch/p000_000.png"]


def test_sounds_are_read_for_keywords(tmp_path: Path) -> None:
    found = load(tones(tmp_path), "keyword")
    assert (found.media, found.unit, found.labels) == ("audio", "recording", ["high", "low"])


def test_empty_folder_says_how_to_lay_it_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, "inspect")
    assert "metadata.csv" in error.value.hint


def test_digest_changes_with_a_label_and_not_with_the_place(tmp_path: Path) -> None:
    a = load(plates(tmp_path / "a"), "inspect").digest()
    b = load(plates(tmp_path / "b"), "inspect").digest()
    (tmp_path / "b" / "good" / "p000_000.png").rename(tmp_path / "b" / "scratch" / "other.png")
    assert a == b
    assert load(tmp_path / "b", "inspect").digest() != a
