"""Small choices over examples, and holding a folder alone."""

from pathlib import Path

import numpy as np
import pytest

from edge.errors import ConfigError
from export import choosing


def test_ten_examples_are_even_over_the_labels() -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 20)
    chosen = choosing.evenly(labels)
    assert len(chosen) == len(set(chosen)) == 10
    assert np.bincount(labels[chosen]).tolist() == [4, 3, 3]


def test_fewer_examples_than_ten_are_all_taken() -> None:
    assert sorted(choosing.evenly(np.array([0, 0, 1]))) == [0, 1, 2]


def test_same_seed_chooses_the_same() -> None:
    places = np.arange(100)
    assert choosing.some(places, 7, 3).tolist() == choosing.some(places, 7, 3).tolist()
    assert len(choosing.some(places, 500, 3)) == 100


def test_folder_that_another_holds_is_refused_until_it_is_free(tmp_path: Path) -> None:
    with choosing.alone(tmp_path), pytest.raises(ConfigError, match="running already"), choosing.alone(tmp_path):
        pass
    with choosing.alone(tmp_path):
        assert (tmp_path / "lock").exists()
