"""Trains on sounds: a pool of changed copies as features, a depthwise separable network, and the loss over it.

Rules:
- Other speeds, rooms, microphones, levels and noises are made on samples; shifts and gaps on features.
- Copy 0 of a recording is the recording itself.
- Network: Zhang et al. 2017, Hello Edge (DS-CNN); convolutions, ReLU, mean, one linear layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge.preprocess import audio_shape, audio_tensor, resample
from edge.wire.manifest import AudioInput
from export.dataset import Item, read
from export.training.loop import Task, sampled

F32 = NDArray[np.float32]
BATCH = 64
PEAK_RATE = 4e-3
_SMOOTHING = 0.05


@dataclass(frozen=True)
class SoundPool:
    """Features of changed copies."""

    values: F32
    """(n, frames, mel bands, 1)."""
    owner: NDArray[np.intp]


class SoundNet(nn.Module):
    """Logits of the labels from features (n, 1, frames, mel bands)."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, 2, 2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            *_separable(32, 64, (2, 1)),
            *_separable(64, 96, (2, 2)),
            *_separable(96, 96, (1, 1)),
            *_separable(96, 96, (1, 1)),
            *_separable(96, 128, (1, 1)),
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(128, labels)

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return logits (n, labels) and features (n, 128)."""
        pooled = torch.flatten(functional.adaptive_avg_pool2d(self.body(features), 1), 1)
        return {"logits": self.head(self.drop(pooled)), "features": pooled}


def values_of(items: list[Item], spec: AudioInput) -> F32:
    """Return sounds as the device's preprocessing gives them, (n, frames, mel bands, 1)."""
    return np.concatenate([audio_tensor(*sound_of(item), spec) for item in items])


def sound_of(item: Item) -> tuple[F32, int]:
    """Return a recording's samples and their rate in Hz."""
    window = read(item)
    assert window.data is not None, f"{item.file} was readable and is not any more"
    return np.asarray(window.data, np.float32), window.sample_rate_hz or 8000


def make_pool(
    items: list[Item], spec: AudioInput, copies: int, folder: Path, seed: int, step: Callable[[int, int], None]
) -> SoundPool:
    """Return features of `copies` changed copies of every item; a finished pool on disk is taken as it is."""
    owner = np.repeat(np.arange(len(items)), copies)
    kept = folder / "pool.npy"
    if kept.exists():
        return SoundPool(np.load(kept), owner)
    values = np.zeros((len(owner), *audio_shape(spec)[1:]), np.float32)
    for at, item in enumerate(items):
        samples, rate_hz = sound_of(item)
        plain = resample(samples, rate_hz, spec.sample_rate_hz)
        for version in range(copies):
            number = at * copies + version
            chance = np.random.default_rng([seed, number])
            sound = plain if version == 0 else _other_room(plain, spec.sample_rate_hz, chance)
            values[number] = audio_tensor(sound, spec.sample_rate_hz, spec)[0]
        step(at + 1, len(items))
    beside = folder / "pool.part.npy"
    np.save(beside, values)
    beside.replace(kept)
    return SoundPool(values, owner)


def task(pool: SoundPool, labels: NDArray[np.intp], label_count: int, seed: int) -> Task:
    """Return what the training loop needs for sounds."""

    def loss(network: torch.nn.Module, batch: NDArray[np.intp], chance: np.random.Generator) -> Tensor:
        features = torch.from_numpy(pool.values[batch]).permute(0, 3, 1, 2)
        logits = network(_moved(features, chance).contiguous(memory_format=torch.channels_last))["logits"]
        return functional.cross_entropy(logits, torch.from_numpy(labels[pool.owner[batch]]), label_smoothing=_SMOOTHING)

    def make() -> torch.nn.Module:
        torch.manual_seed(seed)
        return SoundNet(label_count).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload, no-any-return]

    def groups(network: torch.nn.Module) -> list[dict[str, object]]:
        return [{"params": list(network.parameters()), "lr": PEAK_RATE}]

    def answer(network: torch.nn.Module, chosen: NDArray[np.intp]) -> NDArray[np.intp]:
        with torch.no_grad():
            logits = network.eval()(torch.from_numpy(pool.values[chosen]).permute(0, 3, 1, 2))["logits"]
        return np.asarray(logits.argmax(1).numpy(), np.intp)

    return Task(make, loss, groups, answer, sampled(labels[pool.owner]), BATCH)


def _separable(into: int, out: int, stride: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(into, into, 3, stride, 1, groups=into, bias=False),
        nn.BatchNorm2d(into),
        nn.ReLU(),
        nn.Conv2d(into, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    ]


def _other_room(samples: F32, rate_hz: int, chance: np.random.Generator) -> F32:
    """The sound at another speed and level, through another microphone, with noise and a little echo."""
    sound: F32 = resample(samples, rate_hz, round(rate_hz * float(np.exp(chance.uniform(-0.15, 0.15)))))
    before = np.zeros(int(chance.uniform(0, 0.1) * rate_hz), np.float32)
    sound = np.concatenate([before, sound]).astype(np.float32)
    if chance.random() < 0.3:
        late = int(chance.uniform(0.01, 0.06) * rate_hz)
        again = np.concatenate([np.zeros(late, np.float32), sound])[: len(sound)]
        sound = (sound + np.float32(chance.uniform(0.1, 0.4)) * again).astype(np.float32)
    if chance.random() < 0.6:
        sound = _coloured(sound, chance, 0.6)
    level = float(np.sqrt(np.mean(sound**2))) + 1e-9
    if chance.random() < 0.7:
        noise = _coloured(chance.normal(0, 1, len(sound)).astype(np.float32), chance, 2.0)
        share = 10 ** (-chance.uniform(8, 45) / 20)
        times = np.float32(share * level / (float(np.sqrt(np.mean(noise**2))) + 1e-9))
        sound = (sound + noise * times).astype(np.float32)
    louder = np.float32(np.exp(chance.uniform(-1.6, 0.7)))
    return np.asarray(np.clip(sound * louder, -1, 1), np.float32)


def _coloured(sound: F32, chance: np.random.Generator, strength: float) -> F32:
    spectrum = np.fft.rfft(sound)
    curve = np.interp(np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, 6), chance.uniform(-strength, strength, 6))
    return np.fft.irfft(spectrum * np.exp(curve), len(sound)).astype(np.float32)


def _moved(values: Tensor, chance: np.random.Generator) -> Tensor:
    """Features stretched and moved in time and on the mel axis, with gaps."""
    count, _, frames, bands = values.shape
    shape = np.zeros((count, 2, 3), np.float32)
    pitch = np.exp(chance.uniform(-0.12, 0.12, count))
    shape[:, 0, 0], shape[:, 0, 2] = pitch, pitch - 1
    shape[:, 1, 1], shape[:, 1, 2] = np.exp(chance.uniform(-0.2, 0.2, count)), chance.uniform(-0.15, 0.15, count)
    grid = functional.affine_grid(torch.from_numpy(shape), [count, 1, frames, bands], align_corners=True)
    floor = values.amin((2, 3), keepdim=True)
    moved = functional.grid_sample(values - floor, grid, padding_mode="zeros", align_corners=True) + floor
    for row in np.flatnonzero(chance.random(count) < 0.5):
        start, width = int(chance.integers(frames)), int(chance.integers(1, max(2, frames // 8)))
        moved[row, :, start : start + width] = floor[row, 0, 0, 0]
    return moved
