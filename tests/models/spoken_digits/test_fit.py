"""Training: a speaker that is left out stays out, and unlabelled words join only where the network is sure."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; `pip install torch` to run the recipes")

import torch

from models.commands.network import CommandNet
from models.spoken_digits.data import LABELS
from models.spoken_digits.fit import SURE, Pool, Unlabelled, believed, chances_of, fit
from models.spoken_digits.network import digit_network
from models.spoken_digits.train import Kind, Speech

pytestmark = pytest.mark.torch

FRAMES, COEFFICIENTS = 49, 10


def start() -> CommandNet:
    """Return a network that knows nothing."""
    torch.manual_seed(1)
    network = CommandNet()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def sounds(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return features that are high in one of three coefficients, by label."""
    values = rng.normal(0, 0.3, (len(labels), FRAMES, COEFFICIENTS, 1)).astype(np.float32)
    for row, label in zip(values, labels, strict=True):
        row[:, 2 + 3 * label] += 3.0
    return values


@pytest.fixture(scope="module")
def trained() -> CommandNet:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 240)
    return fit(start(), [Pool(sounds(labels, rng), labels, 1.0)], None, steps=60, seed=2)


def test_a_little_training_tells_plain_sounds_apart(trained: CommandNet) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    assert np.mean(chances_of(trained, sounds(labels, rng)).argmax(1) == labels) > 0.9


def test_words_are_believed_only_where_all_copies_together_are_sure(trained: CommandNet) -> None:
    rng = np.random.default_rng(4)
    labels = np.array([0, 1, 2])
    doubtful = sounds(labels, rng).mean(0, keepdims=True)
    copies = np.concatenate([np.concatenate([sounds(labels, rng), doubtful]) for _ in range(4)])
    chances = chances_of(trained, copies).reshape(4, 4, -1).mean(0)
    sure = chances.max(1) >= SURE
    pools = believed(trained, Unlabelled(copies, 4, 0.1))
    assert sum(len(pool.values) for pool in pools) == 4 * int(sure.sum())
    for pool in pools:
        assert list(pool.labels[: int(sure.sum())]) == list(chances.argmax(1)[sure])


def test_digits_begin_with_the_other_network_but_for_the_last_layer() -> None:
    other = start()
    network = digit_network(other, seed=3)
    assert torch.equal(network.first.weight, other.first.weight)
    assert network.head.out_features == len(LABELS)
    assert not torch.equal(network.head.weight, other.head.weight)


def test_speaker_that_is_left_out_is_nowhere_in_the_training() -> None:
    values = np.zeros((4, FRAMES, COEFFICIENTS, 1), np.float32)
    values[:, 0, 0, 0] = [1, 2, 3, 4]
    kind = Kind(values, np.arange(4), np.array(["ada", "bob", "ada", "eve"]), 1.0)
    assert kind.without("ada").values[:, 0, 0, 0].tolist() == [2, 4]
    speech = Speech(start(), [kind], Unlabelled(values[:0], 0, 0.1))
    assert set(speech.ranges("ada")[:, 0, 0, 0].tolist()) == {2.0, 4.0}
