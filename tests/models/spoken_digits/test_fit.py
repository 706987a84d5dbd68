"""Training: a little of it tells plain sounds apart, a speaker that is left out stays out, copies sound as meant."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; `pip install torch` to run the recipes")

import torch

from models.commands.network import CommandNet
from models.spoken_digits.augment import narrowed, other_features, trimmed
from models.spoken_digits.data import INPUT, LABELS
from models.spoken_digits.fit import Pool, chances_of, fit
from models.spoken_digits.network import digit_network
from models.spoken_digits.train import Kind, Speech

pytestmark = pytest.mark.torch

FRAMES, COEFFICIENTS = 49, 10
RATE_HZ = INPUT.sample_rate_hz


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
    return fit(start(), [Pool(sounds(labels, rng), labels, 1.0)], steps=60, seed=2)


def test_a_little_training_tells_plain_sounds_apart(trained: CommandNet) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 60)
    assert np.mean(chances_of(trained, sounds(labels, rng)).argmax(1) == labels) > 0.9


def test_another_microphone_moves_every_frame_alike() -> None:
    values = torch.zeros(8, 1, FRAMES, COEFFICIENTS)
    changed = other_features(values, np.random.default_rng(5))
    assert changed.shape == values.shape
    assert torch.allclose(changed, changed[:, :, :1].expand_as(changed), atol=1e-5)
    assert changed[:, 0, 0].std(0).min() > 0, "each sound has a microphone of its own"


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
    speech = Speech(start(), [kind])
    assert set(speech.ranges("ada")[:, 0, 0, 0].tolist()) == {2.0, 4.0}


def test_weak_ends_of_a_word_are_trimmed_by_level_but_never_the_word() -> None:
    tone = np.sin(2 * np.pi * 300 * np.arange(RATE_HZ // 4) / RATE_HZ).astype(np.float32)
    weak = 0.05 * tone
    assert len(trimmed(np.concatenate([weak, tone, weak]), RATE_HZ, 0.2)) < 1.2 * len(tone)
    assert len(trimmed(np.concatenate([weak, tone, weak]), RATE_HZ, 0.01)) > 2.8 * len(tone)
    short = tone[: RATE_HZ // 20]
    assert len(trimmed(short, RATE_HZ, 0.2)) == len(short)


def test_narrow_copy_keeps_the_voice_and_loses_what_is_above_a_telephone() -> None:
    times = np.arange(RATE_HZ) / RATE_HZ
    voice, hiss = (np.sin(2 * np.pi * hz * times).astype(np.float32) for hz in (1000, 7000))
    rng = np.random.default_rng(6)
    assert np.std(narrowed(hiss, RATE_HZ, rng)) < 0.1 * np.std(hiss)
    assert np.std(narrowed(voice, RATE_HZ, rng)) > 0.9 * np.std(voice)
