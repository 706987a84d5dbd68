"""Drift from clean to soiled metal: seen by the devices' own measure before the pits come."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.ball_screw.drift import watch
from tests.data import real_data


def test_darkening_series_raises_an_alarm_before_its_pits(tmp_path: Path) -> None:
    seen = watch(_series(tmp_path, fading=1.2), fresh=16, window=16)
    assert "brightness" in {alarm.metric for alarm in seen.alarms}
    assert min(alarm.picture for alarm in seen.alarms) < seen.first_pit == seen.lasting_pit == 88


def test_steady_series_raises_no_alarm(tmp_path: Path) -> None:
    assert watch(_series(tmp_path, fading=0.0), fresh=16, window=16).alarms == []


@pytest.mark.real_data
def test_soil_of_the_bench_is_seen_before_the_first_pit() -> None:
    seen = watch(real_data("ball-screw"))
    assert seen.pictures == 276
    assert seen.alarms[0].picture < seen.first_pit < seen.lasting_pit


def _series(folder: Path, fading: float) -> Path:
    """Write 96 small noisy pictures of one position, the last eight pitted."""
    rng = np.random.default_rng(4)
    for label in ("good", "pitting"):
        (folder / label).mkdir()
    for number in range(96):
        level = 150 + rng.normal(0, 4) - fading * max(number - 20, 0)
        picture = np.clip(rng.normal(level, 20, (64, 96, 3)), 0, 255).astype(np.uint8)
        label = "pitting" if number >= 88 else "good"
        cv2.imwrite(str(folder / label / f"01_2009010{number:05d}_305000_090_crop_1.jpg"), picture)
    return folder
