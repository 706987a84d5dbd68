"""Ways to use the scores of a time series: against its own past, several together, without the beginnings."""

import numpy as np

from models.ball_screw.tried import beginnings, figures, own_past, together

POSITION = np.array(["a", "a", "a", "b", "b", "b"])


def test_own_past_takes_off_what_a_position_looked_like_at_first() -> None:
    odds = np.array([1.0, 3.0, 9.0, -2.0, -2.0, 4.0])
    np.testing.assert_allclose(own_past(odds, POSITION, first=2), [-1, 1, 7, 0, 0, 6])


def test_pictures_in_a_row_are_of_one_position() -> None:
    odds = np.array([0.0, 2.0, 4.0, 10.0, 20.0, 30.0])
    np.testing.assert_allclose(together(odds, POSITION, count=2), [0, 1, 3, 10, 15, 25])


def test_beginnings_are_the_first_pictures_of_each_run() -> None:
    pitted = np.array([False, True, True, True, False, True])
    assert beginnings(pitted, POSITION, count=1).tolist() == [False, True, False, True, False, True]


def test_kept_scores_give_what_the_card_says() -> None:
    found = {what: figure["auroc"] for what, figure in figures().items()}
    assert list(found.values()) == [0.9435, 0.9714, 0.9315, 0.9703, 0.9932]
