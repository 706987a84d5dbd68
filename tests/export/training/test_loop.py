"""The training loop: it goes on where it was broken off, and gives the same network."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from export.training import loop  # noqa: E402

CHANCE = np.random.default_rng(2)
VALUES = CHANCE.normal(0, 1, (60, 2, 4, 4)).astype(np.float32)
LABELS = (VALUES.mean((1, 2, 3)) > 0).astype(np.intp)


def task() -> loop.Task:
    def make() -> torch.nn.Module:
        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

    def loss(network: torch.nn.Module, batch: np.ndarray, _chance: np.random.Generator) -> Tensor:
        return torch.nn.functional.cross_entropy(
            network(torch.from_numpy(VALUES[batch])), torch.from_numpy(LABELS[batch])
        )

    def answer(network: torch.nn.Module, chosen: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(VALUES[chosen])).argmax(1).numpy())

    return loop.Task(
        make,
        loss,
        lambda network: [{"params": list(network.parameters()), "lr": 0.02}],
        answer,
        loop.sampled(LABELS),
        16,
    )


def trained(place: Path, step: object = None) -> bytes:
    torch.set_num_threads(1)
    report = step or (lambda _done, _of: None)
    made = loop.train(
        task(),
        np.arange(60),
        steps=100,
        seed=3,
        shape=(2, 4, 4),
        place=place,
        step=report,  # type: ignore[arg-type]
    )
    return bytes(made.SerializeToString(deterministic=True))


def test_same_seed_gives_the_same_network(tmp_path: Path) -> None:
    assert trained(tmp_path / "a") == trained(tmp_path / "b")


def test_training_that_was_broken_off_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    class StoppedError(Exception):
        pass

    def stop(done: int, _of: int) -> None:
        if done == 50:
            raise StoppedError

    with pytest.raises(StoppedError):
        trained(tmp_path / "a", stop)
    seen: list[int] = []
    resumed = trained(tmp_path / "a", lambda done, _of: seen.append(done))
    assert seen == [50, 75, 100], "it begins by saying how far it was"
    assert resumed == trained(tmp_path / "b")


def test_finished_network_is_not_trained_again(tmp_path: Path) -> None:
    first = trained(tmp_path / "a")
    seen: list[int] = []
    assert trained(tmp_path / "a", lambda done, _of: seen.append(done)) == first
    assert seen == []


def test_ten_examples_are_learned_by_heart_unless_labels_contradict() -> None:
    chosen = np.arange(10)
    assert loop.overfits(task(), chosen, LABELS[chosen], 1)
    same = np.array([0] * 10)
    assert not loop.overfits(task(), same, np.array([0, 1] * 5), 1)


def test_rare_classes_are_drawn_about_as_often_as_common_ones() -> None:
    labels = np.array([0] * 90 + [1] * 30)
    weights = loop.sampled(labels)
    assert weights[:90].sum() == pytest.approx(weights[90:].sum(), rel=0.01)
