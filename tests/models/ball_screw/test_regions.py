"""Counting by region: which squares are pitted, which count, and what the heat map is worth."""

import numpy as np

from models.ball_screw.data import INPUT, Photo, track_cells
from models.ball_screw.regions import false_alarms, figures, squares

SHAPE = track_cells(16).shape


def test_square_under_an_outline_is_pitted_and_its_hottest_cell_is_its_score() -> None:
    heat = np.zeros((1, *SHAPE), np.float32)
    heat[0, 12, 30] = 7.0
    pitted, score, picture = squares([_photo(pit=(488, 200))], heat)
    assert pitted.sum() == 1
    assert score[pitted].tolist() == [7.0]
    assert score[~pitted].max() == 0
    assert set(picture) == {0}


def test_square_that_an_outline_hardly_touches_is_left_out_and_off_the_track_nothing_counts() -> None:
    heat = np.zeros((1, *SHAPE), np.float32)
    clean = len(squares([_photo()], heat)[0])
    assert 0 < clean < SHAPE[0] * SHAPE[1] / 16
    assert len(squares([_photo(pit=(510, 200))], heat)[0]) == clean - 1, "a column of six pixels lies in the next one"
    assert len(squares([_photo(pit=(500, 20))], heat)[0]) == clean, "above the track"


def test_heat_at_the_pits_is_worth_more_than_heat_elsewhere() -> None:
    photos = [_photo(pit=(488, 200)), _photo(), _photo(pit=(700, 150)), _photo()]
    right, wrong = (np.zeros((4, *SHAPE), np.float32) for _ in range(2))
    right[0, 12, 30] = right[2, 9, 43] = wrong[1, 12, 30] = wrong[3, 9, 43] = 7.0
    found = figures(photos, right)
    assert (found["auroc"], found["false_alarms_at_95_recall"], found["pitted"]) == (1.0, 0.0, 2)
    assert figures(photos, wrong)["auroc"] < 0.5


def test_false_alarms_are_counted_at_the_score_that_finds_nineteen_of_twenty() -> None:
    pitted = np.array([True] * 20 + [False] * 10)
    score = np.array([0.0, *([5.0] * 19), *([1.0] * 9), 6.0])
    assert false_alarms(pitted, score) == 0.1


def _photo(pit: tuple[int, int] | None = None) -> Photo:
    """A plain picture, with an outline of 6 × 6 pixels around a place."""
    picture = np.full((INPUT.height, INPUT.width, 3), 120, np.uint8)
    pits = []
    if pit is not None:
        x, y = pit
        pits = [np.array([[x - 3, y - 3], [x + 2, y - 3], [x + 2, y + 2], [x - 3, y + 2]], np.float32)]
    return Photo("01_200916071457_462500_045_crop_1.jpg", "462500_045", pit is not None, picture, pits)
