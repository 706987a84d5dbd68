"""Lengths in millimetres, the labelling convention, a new batch and a lamp that ages."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.phone_glass.convention import BORDERLINE, CONVENTION, MM_PER_PIXEL, Convention, length_mm
from models.phone_glass.generate import main
from models.phone_glass.generator import Studio
from models.phone_glass.parts import (
    FADING,
    FADING_PARTS,
    FINISHES,
    LIGHTS,
    Part,
    light_of,
    make_part,
    of_drawn_batch,
    of_new_batch,
    with_small_mark,
)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


def test_line_across_the_mask_has_its_length_in_millimetres() -> None:
    mask = np.zeros((480, 640), np.uint8)
    mask[200, 100:200] = 255
    assert length_mm(mask) == pytest.approx(100 * MM_PER_PIXEL, abs=0.05)
    assert length_mm(np.zeros((480, 640), np.uint8)) == 0.0


@pytest.mark.parametrize(
    ("length", "label"), [(0.1, "good"), (0.25, BORDERLINE), (0.3, BORDERLINE), (0.4, BORDERLINE), (0.5, "scratch")]
)
def test_convention_says_good_borderline_or_the_defect(length: float, label: str) -> None:
    assert CONVENTION.label("scratch", length) == label
    assert CONVENTION.label("good", length) == "good"


def test_other_convention_moves_the_border_and_says_it_in_words() -> None:
    strict = Convention(longer_than_mm=0.1, unsure_mm=0.02)
    assert strict.label("scratch", 0.2) == "scratch"
    assert "longer than 0.1 mm" in strict.in_words()


def test_longer_mark_shows_more(studio: Studio) -> None:
    def change(length: float) -> float:
        marked = Part(1, 5, "scratch", 0.5, FINISHES[0], mark_mm=length)
        plain = studio.photograph(Part(1, 5, "good", 0.0, FINISHES[0]), LIGHTS["normal"])
        return float(np.abs(studio.photograph(marked, LIGHTS["normal"]).astype(int) - plain).sum())

    assert 0 < change(0.2) < change(0.8) < change(3.0)


@pytest.mark.parametrize("batch", [of_new_batch, of_drawn_batch])
def test_other_batch_has_a_finish_that_no_set_holds_and_the_same_defect(batch: Callable[[Part], Part]) -> None:
    part = make_part(9, 4, 1.0)
    other = batch(part)
    assert other.finish not in FINISHES
    assert (other.label, other.severity, other.seed) == (part.label, part.severity, part.seed)


def test_small_marks_lie_around_the_convention_and_spare_good_parts() -> None:
    parts = [with_small_mark(make_part(9, number, 0.5)) for number in range(400)]
    lengths = [part.mark_mm for part in parts if part.mark_mm is not None]
    labels = [CONVENTION.label(part.label, part.mark_mm or 0.0) for part in parts]
    assert all(part.mark_mm is None for part in parts if part.label == "good")
    assert 0.05 <= min(lengths) < 0.1 < 0.9 < max(lengths) <= 1.0
    assert 20 < labels.count(BORDERLINE) < 70


def test_aging_lamp_begins_as_the_usual_one_and_loses_half() -> None:
    new, old = light_of(FADING, 1, 0), light_of(FADING, 1, FADING_PARTS)
    assert (new.gain, new.tint) == (LIGHTS["normal"].gain, LIGHTS["normal"].tint)
    assert old.gain == pytest.approx(0.5)
    assert light_of(FADING, 1, FADING_PARTS // 2).gain == pytest.approx(0.75)


def test_truth_of_a_written_series_holds_length_and_label_by_convention(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--count", "12", "--seed", "3", "--batch", "small", "--defect-share", "0.8"])
    with (tmp_path / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["by_convention"] == CONVENTION.label(row["label"], float(row["length_mm"]))
    assert len({row["by_convention"] for row in rows}) > 1
