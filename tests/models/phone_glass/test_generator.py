"""The generator: same seed same bytes, truth as drawn, whole files in the order of time."""

import csv
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from natsort import natsorted

from edge.gate import picture_metrics
from models.phone_glass.generate import main, series, write_series
from models.phone_glass.generator import Studio
from models.phone_glass.parts import DEFECTS, FINISHES, LABELS, LIGHTS, Part, make_part


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


def test_same_part_light_and_shot_give_the_same_picture(studio: Studio) -> None:
    part = make_part(1, 7, 0.5)
    first, second = studio.photograph(part, LIGHTS["warm"], 2), Studio().photograph(part, LIGHTS["warm"], 2)
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, studio.photograph(part, LIGHTS["warm"], 3))


def test_same_seed_writes_the_same_files(studio: Studio, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        pictures = series(seed=4, start=0, count=3, light="mixed", defect_share=0.5, studio=studio)
        write_series(tmp_path / folder, pictures)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_command_goes_on_where_it_ended_in_order_of_time_with_truth(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--count", "3", "--seed", "2", "--start", "8"])
    main(["--out", str(tmp_path), "--count", "3", "--seed", "2", "--start", "11", "--light", "dim"])
    with (tmp_path / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["file"] for row in rows]
    assert names == natsorted(path.name for path in tmp_path.glob("*.jpg"))
    assert [row["label"] for row in rows] == [make_part(2, number, 0.3).label for number in range(8, 14)]
    assert all((row["severity"] == "0.0") == (row["label"] == "good") for row in rows)
    assert not list(tmp_path.glob(".*")), "nothing half written is left"


def test_rate_spaces_pictures_in_time(studio: Studio, tmp_path: Path) -> None:
    now, slept = [100.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pictures = series(seed=4, start=0, count=4, light="normal", defect_share=0.0, studio=studio)
    write_series(tmp_path, pictures, rate_hz=2.0, sleep=sleep, monotonic=lambda: now[0])
    assert slept == pytest.approx([0.0, 0.5, 0.5, 0.5])


def test_share_and_kinds_of_defects_are_as_asked() -> None:
    parts = [make_part(3, number, 0.4) for number in range(3000)]
    defective = [part for part in parts if part.label != "good"]
    assert len(defective) / len(parts) == pytest.approx(0.4, abs=0.03)
    assert {part.label for part in parts} == set(LABELS)
    assert all(0 < part.severity <= 1 for part in defective)


@pytest.mark.parametrize("label", DEFECTS)
def test_defect_shows_where_the_mask_says_and_grows_with_severity(studio: Studio, label: str) -> None:
    def drawn(severity: float, name: str = label) -> tuple[np.ndarray, np.ndarray]:
        return studio.photograph_with_truth(Part(1, 77, name, severity, FINISHES[4]), LIGHTS["normal"])

    strong, mask = drawn(0.9)
    assert np.count_nonzero(mask > 64) > np.count_nonzero(drawn(0.1)[1] > 64)
    good, none = drawn(0.0, "good")
    assert not none.any()
    change = cv2.absdiff(strong, good).mean(axis=2)
    inside, outside = change[mask > 128].mean(), change[cv2.dilate(mask, np.ones((25, 25))) == 0].mean()
    assert inside > 4 * outside


def test_dim_light_is_darker_for_every_finish_and_dark_is_darker_still(studio: Studio) -> None:
    for number in range(8):
        part = make_part(6, number, 0.0)
        normal, dim, dark = (
            picture_metrics(studio.photograph(part, LIGHTS[name]))["brightness"] for name in ("normal", "dim", "dark")
        )
        assert dark < dim < 0.6 * normal


def test_generator_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; import models.phone_glass.generate, models.phone_glass.generator"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], timeout=60)
