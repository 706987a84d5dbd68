"""Kept scores: no unit calibrates itself, and what is an event is the task's."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import load
from edge.wire.manifest import Manifest
from export.recipe import Labelled
from models.kept import cross_fitted

MODELS = Path(__file__).parents[2] / "models"


def manifest(name: str) -> Manifest:
    (path,) = (MODELS / name).glob("*.lsb")
    return load(path).manifest


def judged(labels: int, seed: int) -> Labelled:
    """Two hundred examples of fifty units, by a network that is far too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (200, labels))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (chances.cumsum(1) > rng.random((200, 1))).argmax(1).astype(np.intp)
    return Labelled(np.zeros((200, 1)), truth, np.arange(200) // 4, (4 * logits).astype(np.float32))


def with_other_labels(examples: Labelled, units: NDArray[np.intp]) -> Labelled:
    """The labels of some units say what the network says."""
    assert examples.groups is not None and examples.logits is not None
    labels = np.where(np.isin(examples.groups, units), examples.logits.argmax(1), examples.labels)
    return Labelled(examples.values, labels, examples.groups, examples.logits)


def test_units_are_calibrated_by_the_other_half_and_never_by_themselves() -> None:
    made, examples = manifest("commands"), judged(12, seed=1)
    before = cross_fitted(made, examples, "as they are")
    moved = np.zeros(50, np.bool_)
    for unit in range(50):
        after = cross_fitted(made, with_other_labels(examples, np.array([unit])), "one unit is right")
        changed = np.unique(examples.groups[after.sample.score != before.sample.score])  # type: ignore[index]
        assert unit not in changed
        moved[changed] = True
    assert moved.all()
    assert before.sample.score.mean() == pytest.approx(before.sample.event.mean(), abs=0.1), "no longer far too sure"


def test_event_is_a_right_word_or_a_defect() -> None:
    words = cross_fitted(manifest("commands"), judged(12, seed=2), "words")
    assert (words.task, words.name) == ("keyword", "commands 1.0.0, words")
    examples = judged(7, seed=3)
    boards = cross_fitted(manifest("pcb"), examples, "boards", np.arange(200) % 4)
    np.testing.assert_array_equal(boards.sample.event, examples.labels != 0)
    assert boards.block is not None
    assert (boards.sample.score[examples.logits.argmax(1) == 0] <= 0.9).all()  # type: ignore[union-attr]
