"""Makes a few speakers sound like many, in features: samples are changed by `models.sounds.augment`.

Rules:
- Everything random comes from the generator passed in.
- What changes the sound is done on samples; what only moves its features in time is done on features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge.preprocess import audio_tensor
from models.sounds import augment as change
from models.spoken_digits.data import INPUT, SILENCE_INDEX, Recording

F32 = NDArray[np.float32]
Noises = dict[str, list[F32]]

_QUIETEST_PEAK, _LOUDEST_PEAK = 0.02, 0.95


def features(recordings: list[Recording], versions: int, noises: Noises, rng: np.random.Generator) -> F32:
    """Return features of changed copies, (versions × n, frames, coefficients, 1), version by version."""
    rate_hz = INPUT.sample_rate_hz
    values = [
        audio_tensor(_otherwise(recording, noises, rng), rate_hz, INPUT)
        for _ in range(versions)
        for recording in recordings
    ]
    return np.concatenate(values)


def plain_features(recordings: list[Recording]) -> F32:
    """Return features of recordings as they are, (n, frames, coefficients, 1)."""
    return np.concatenate([audio_tensor(one.samples, INPUT.sample_rate_hz, INPUT) for one in recordings])


def other_features(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Return features (n, 1, frames, coefficients) said faster or slower and earlier or later.

    Together with another speed of the samples, which moves pitch and throat, this makes other throats at any tempo
    (Jaitly and Hinton 2013, vocal tract length perturbation).
    """
    count, _, frames, coefficients = values.shape
    time = np.exp(rng.uniform(np.log(0.8), np.log(1.25), count))
    shape = np.zeros((count, 2, 3), np.float32)
    shape[:, 0, 0], shape[:, 1, 1] = 1.0, time
    shape[:, 1, 2] = rng.uniform(-0.15, 0.15, count)
    grid = functional.affine_grid(torch.from_numpy(shape), [count, 1, frames, coefficients], align_corners=True)
    return functional.grid_sample(values, grid, padding_mode="border", align_corners=True)


def _otherwise(recording: Recording, noises: Noises, rng: np.random.Generator) -> F32:
    """Return the word at another speed and level, in another room, through another microphone, with noise."""
    rate_hz = INPUT.sample_rate_hz
    sound = change.faster(recording.samples, rate_hz, 0.8, 1.25, rng)
    if rng.random() < 0.5:
        sound = _cut_ends(sound, rng)
    before, after = (np.zeros(int(rng.uniform(0, 0.15) * rate_hz), np.float32) for _ in range(2))
    sound = np.concatenate([before, sound, after])
    if rng.random() < 0.4:
        sound = change.echoed(sound, rate_hz, rng)
    if rng.random() < 0.6:
        sound = change.coloured(sound, 0.7, rng)
    peak = np.exp(rng.uniform(np.log(_QUIETEST_PEAK), np.log(_LOUDEST_PEAK)))
    sound = sound * np.float32(peak / max(float(np.abs(sound).max(initial=0.0)), 1e-6))
    return np.asarray(np.clip(_with_noise(recording, sound, noises, rng), -1, 1), np.float32)


def _with_noise(recording: Recording, sound: F32, noises: Noises, rng: np.random.Generator) -> F32:
    draw = rng.random()
    if draw < 0.3 or recording.label == SILENCE_INDEX:
        return sound
    if draw < 0.55 and noises:
        return change.mixed(sound, change.excerpt(noises, len(sound), rng), float(rng.uniform(3, 30)))
    noise = change.coloured(rng.normal(0, 1, len(sound)).astype(np.float32), 2.0, rng)
    return change.mixed(sound, noise, float(rng.uniform(8, 45)))


def _cut_ends(sound: F32, rng: np.random.Generator) -> F32:
    """Recorders cut words short."""
    most = max(len(sound) // 12, 1)
    return np.asarray(sound[int(rng.integers(most)) : len(sound) - int(rng.integers(most))], np.float32)
