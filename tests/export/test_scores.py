"""Scores in a file: there and back, and what is not such a file is refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.errors import ModelError
from export.scores import Scores, of, read, write
from export.thresholds import Sample
from tests.export.judgements import heard, inspected


def scores(**changes: Any) -> Scores:
    given: dict[str, Any] = {"score": [0.1, 0.9], "event": [False, True], "unit": ["a", "b"], **changes}
    return Scores(Sample(*(np.array(given[name]) for name in ("score", "event", "unit"))), "inspect", "m 1.0.0")


def test_scores_written_and_read_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "work" / "scores.npz"
    write(path, scores())
    got = read(path)
    assert (got.task, got.name) == ("inspect", "m 1.0.0")
    for name in ("score", "event", "unit"):
        np.testing.assert_array_equal(getattr(got.sample, name), getattr(scores().sample, name))


def test_units_of_any_kind_and_none_are_written(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    write(path, scores(unit=np.array(["board 1", 7], dtype=object)))
    assert read(path).sample.unit is not None
    write(path, Scores(Sample(np.array([0.5, 0.5]), np.array([True, False])), "keyword", "m"))
    assert len(np.unique(read(path).sample.units())) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": [0.1, 1.2]}, "between 0 and 1"),
        ({"score": [0.1, np.nan]}, "between 0 and 1"),
        ({"score": [0.1]}, "of one length"),
        ({"unit": ["a"]}, "of one length"),
    ],
)
def test_numbers_that_are_no_scores_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "scores.npz"
    write(path, scores(**changes))
    with pytest.raises(ModelError, match=words):
        read(path)


def test_file_without_a_part_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.npz"
    np.savez(path, score=np.zeros(2), event=np.zeros(2, np.bool_), unit=np.zeros(2))
    with pytest.raises(ModelError, match="there is no task, name"):
        read(path)
    np.savez(path, score=np.zeros(2), event=np.zeros(2, np.bool_), unit=np.zeros(2), task="draw", name="m")
    with pytest.raises(ModelError, match="task inspect or keyword, got draw"):
        read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ModelError, match="cannot read scores"):
        read(path)
    with pytest.raises(ModelError, match="cannot read scores"):
        read(tmp_path / "absent.npz")


def test_scores_of_inspected_parts_are_those_of_defects_without_what_the_gate_refused() -> None:
    judged = inspected([0.1, 0.9, float("nan")], [False, True, True], groups=[4, 4, 5])
    got = of(judged, "m 1.0.0")
    assert got.task == "inspect"
    np.testing.assert_allclose(got.sample.score, [0.1, 0.9])
    np.testing.assert_array_equal(got.sample.event, [False, True])
    np.testing.assert_array_equal(np.asarray(got.sample.unit), [4, 4])


def test_scores_of_words_are_those_of_the_likeliest_and_whether_it_is_right() -> None:
    got = of(heard([[0.7, 0.3], [0.2, 0.8]], [0, 0]), "m 1.0.0")
    assert got.task == "keyword"
    np.testing.assert_allclose(got.sample.score, [0.7, 0.8])
    np.testing.assert_array_equal(got.sample.event, [True, False])
