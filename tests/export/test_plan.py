"""The plan of a fit: sizes, steps, folds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ConfigError
from edge.wire.manifest import ImageInput
from export import plan
from export.dataset import load
from tests.export.folders import plates

OPTIONS = plan.Options(Path(), "inspect", "plates")


def sizes(width: int, height: int, spread: float = 1.0) -> dict[str, Any]:
    aspect = width / height
    return {
        "width_min_median_max": [width, width, width],
        "height_min_median_max": [height, height, height],
        "aspect_min_median_max": [aspect / spread, aspect, aspect * spread],
    }


@pytest.mark.parametrize(("width", "height"), [(1130, 460), (640, 640), (300, 900), (64, 64)])
def test_input_keeps_the_pictures_shape_and_fits_the_network(width: int, height: int) -> None:
    spec = plan.picture_input(sizes(width, height), None)
    assert spec.width % 32 == 0
    assert spec.height % 32 == 0
    assert spec.width * spec.height <= 1.35 * 320**2
    assert abs(np.log(spec.width / spec.height / (width / height))) < 0.3
    assert spec.resize == "stretch"


def test_pictures_of_many_shapes_are_framed() -> None:
    assert plan.picture_input(sizes(300, 300, spread=1.6), None).resize == "letterbox"


def test_small_pictures_are_enlarged_and_pass_the_gate() -> None:
    spec = plan.picture_input(sizes(12, 12), None)
    assert spec.width == 128
    assert spec.min_side <= 12


def test_sides_are_tried_only_where_pictures_are_large() -> None:
    assert list(plan.sides_to_try({"sizes": sizes(1130, 460)}, OPTIONS)) == [320, 480, 640]
    assert plan.sides_to_try({"sizes": sizes(200, 200)}, OPTIONS) == {}


def test_sound_at_16_khz_keeps_its_band_and_short_words_get_a_second() -> None:
    found = plan.sound_input({"rates_hz": {"16000": 9, "8000": 1}, "seconds_min_median_p95_max": [0.3, 0.4, 0.6, 0.9]})
    assert (found.sample_rate_hz, found.window_s) == (16000, 1.0)
    assert found.high_hz > 7000


def test_plan_is_the_same_for_the_same_command_and_shrinks_with_the_minutes(tmp_path: Path) -> None:
    data = load(plates(tmp_path), "inspect")
    facts = {"sizes": sizes(64, 64)}
    first, again = plan.make(data, facts, OPTIONS), plan.make(data, facts, OPTIONS)
    hasty = plan.make(data, facts, plan.Options(Path(), "inspect", "plates", minutes=0.1))
    assert first == again
    assert hasty.fold_steps < first.fold_steps
    assert first.key("d", OPTIONS) != hasty.key("e", OPTIONS)


def test_folds_never_part_a_group(tmp_path: Path) -> None:
    data = load(plates(tmp_path, per_part=3), "inspect", group=r"^(p\d+)_")
    folds = plan.folds_of(data, 3, seed=1)
    for group in {item.group for item in data.items}:
        assert len({int(folds[i]) for i, item in enumerate(data.items) if item.group == group}) == 1
    assert set(folds) == {0, 1, 2}


def test_one_group_alone_is_refused(tmp_path: Path) -> None:
    data = load(plates(tmp_path), "inspect", group="(p)")
    with pytest.raises(ConfigError, match="at least two independent"):
        plan.folds_of(data, 3, seed=1)


def test_own_test_split_needs_no_folds(tmp_path: Path) -> None:
    plates(tmp_path / "train", count=4)
    plates(tmp_path / "test", count=4)
    made = plan.make(load(tmp_path, "inspect"), {"sizes": sizes(64, 64)}, OPTIONS)
    assert made.folds == 0
    assert isinstance(made.input, ImageInput)
