"""Figures go by part: intervals, means over lights, and where the network looked."""

import numpy as np

from export.roc import auroc
from models.magnetic_tile.data import INPUT, Photo
from models.magnetic_tile.measure import Scored, by_part, found, interval


def test_one_score_per_tile_is_the_mean_over_its_lights() -> None:
    bad, score, parts = by_part(
        np.array([False, False, True, True]), np.array([0.0, 2.0, 3.0, 5.0]), np.array([1, 1, 2, 2])
    )
    assert bad.tolist() == [False, True]
    assert score.tolist() == [1.0, 4.0]
    assert parts.tolist() == [1, 2]


def test_interval_by_part_is_wider_than_by_picture() -> None:
    rng = np.random.default_rng(0)
    parts = np.arange(20).repeat(6)
    bad = parts % 2 == 0
    score = (bad * 1.0 + rng.normal(0, 1.2, 20)[parts]).astype(np.float64)
    low, high = interval(lambda drawn: auroc(bad[drawn], score[drawn]), parts)
    near, far = interval(lambda drawn: auroc(bad[drawn], score[drawn]), np.arange(120))
    assert high - low > 1.5 * (far - near)


def test_defect_is_found_only_where_the_heat_is_beside_its_mask() -> None:
    heat = np.zeros((2, INPUT.height // 16, INPUT.width // 16), np.float32)
    heat[0, 6, 6] = heat[1, 20, 30] = 1
    scored = Scored([_photo(), _photo()], np.zeros(2), heat)
    assert found(scored).tolist() == [True, False]


def _photo() -> Photo:
    mask = np.zeros((INPUT.height, INPUT.width), np.uint8)
    mask[100:110, 100:110] = 1
    return Photo("exp1_num_1.jpg", 1, 1, "crack", 0, 0, mask, mask, (0, 0, INPUT.width, INPUT.height))
