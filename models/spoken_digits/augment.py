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
_COLOUR = (2.0, 1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3)
"""Standard deviation of what a microphone adds to each coefficient; about a third of what the coefficient varies by."""
_LONGEST_GAP = 6
"""Frames; 120 ms, less than any digit lasts."""


def features(
    recordings: list[Recording], versions: int, noises: Noises, rng: np.random.Generator, *, narrow: float
) -> F32:
    """Return features of changed copies, (versions × n, frames, coefficients, 1), version by version.

    Args:
        recordings: at INPUT.sample_rate_hz.
        versions: copies of each.
        noises: by kind, to mix in.
        rng: all that is random.
        narrow: share of copies that lose what a recorder of 8 kHz or a telephone loses.
    """
    rate_hz = INPUT.sample_rate_hz
    values = [
        audio_tensor(_otherwise(recording, noises, rng, narrow), rate_hz, INPUT)
        for _ in range(versions)
        for recording in recordings
    ]
    return np.concatenate(values)


def plain_features(recordings: list[Recording]) -> F32:
    """Return features of recordings as they are, (n, frames, coefficients, 1)."""
    return np.concatenate([audio_tensor(one.samples, INPUT.sample_rate_hz, INPUT) for one in recordings])


def other_features(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Return features (n, 1, frames, coefficients) said faster or slower, earlier or later, into another microphone.

    Together with another speed of the samples, which moves pitch and throat, the tempo makes other throats at any speed
    (Jaitly and Hinton 2013, vocal tract length perturbation). A microphone adds the same to a coefficient in every
    frame; now and then a stretch of frames is lost (Park et al. 2019, SpecAugment).
    """
    count, _, frames, coefficients = values.shape
    time = np.exp(rng.uniform(np.log(0.8), np.log(1.25), count))
    shape = np.zeros((count, 2, 3), np.float32)
    shape[:, 0, 0], shape[:, 1, 1] = 1.0, time
    shape[:, 1, 2] = rng.uniform(-0.15, 0.15, count)
    grid = functional.affine_grid(torch.from_numpy(shape), [count, 1, frames, coefficients], align_corners=True)
    moved = functional.grid_sample(values, grid, padding_mode="border", align_corners=True)
    colour = rng.normal(0, 1, (count, 1, 1, coefficients)) * np.resize(_COLOUR, coefficients)
    moved = moved + torch.from_numpy(colour.astype(np.float32))
    for index in np.flatnonzero(rng.random(count) < 0.5):
        length = int(rng.integers(1, _LONGEST_GAP + 1))
        start = int(rng.integers(frames - length))
        moved[index, 0, start : start + length] = moved[index, 0].mean(0)
    return moved


def trimmed(sound: F32, rate_hz: int, below: float) -> F32:
    """Return the sound without the beginning and the end whose level is under `below` of the loudest 20 ms.

    Recorders that trim by level cut the two `s` of `six` and the `t` of `eight`. What would be shorter than 120 ms
    stays whole.
    """
    size, hop = rate_hz // 50, rate_hz // 100
    if len(sound) < 3 * size:
        return sound
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[::hop]
    levels = np.sqrt(np.mean(np.square(frames), axis=1))
    loud = np.flatnonzero(levels >= below * levels.max())
    start, end = int(loud[0]) * hop, int(loud[-1]) * hop + size
    return sound[start:end] if end - start > 0.12 * rate_hz else sound


def narrowed(sound: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """Return the sound without what is below 40 … 350 Hz and above 2.9 … 4 kHz, by slopes that differ."""
    spectrum = np.fft.rfft(sound)
    hz = np.fft.rfftfreq(len(sound), 1 / rate_hz)
    low, high = np.exp(rng.uniform(np.log(40), np.log(350))), rng.uniform(2900, 4000)
    gain = 1 / np.sqrt(1 + (low / np.maximum(hz, 1)) ** 4) / np.sqrt(1 + (hz / high) ** (2 * rng.uniform(4, 20)))
    return np.fft.irfft(spectrum * gain, len(sound)).astype(np.float32)


def _otherwise(recording: Recording, noises: Noises, rng: np.random.Generator, narrow: float) -> F32:
    """Return the word at another speed and level, in another room, through another microphone, with noise."""
    rate_hz = INPUT.sample_rate_hz
    sound = change.faster(recording.samples, rate_hz, 0.8, 1.25, rng)
    if rng.random() < 0.5:
        sound = _cut_ends(sound, rng)
    if rng.random() < narrow:
        sound = narrowed(sound, rate_hz, rng)
    if rng.random() < 0.5:
        sound = trimmed(sound, rate_hz, float(10 ** (-rng.uniform(10, 36) / 20)))
    before, after = (np.zeros(int(rng.uniform(0, 0.15) * rate_hz), np.float32) for _ in range(2))
    sound = np.concatenate([before, sound, after])
    if rng.random() < 0.4:
        sound = change.echoed(sound, rate_hz, rng)
    if rng.random() < 0.7:
        sound = change.coloured(sound, 0.7, rng)
    peak = np.exp(rng.uniform(np.log(_QUIETEST_PEAK), np.log(_LOUDEST_PEAK)))
    sound = sound * np.float32(peak / max(float(np.abs(sound).max(initial=0.0)), 1e-6))
    return np.asarray(np.clip(_with_noise(recording, sound, noises, rng), -1, 1), np.float32)


def _with_noise(recording: Recording, sound: F32, noises: Noises, rng: np.random.Generator) -> F32:
    draw = rng.random()
    if draw < 0.55 or recording.label == SILENCE_INDEX:
        return sound
    if draw < 0.7 and noises:
        return change.mixed(sound, change.excerpt(noises, len(sound), rng), float(rng.uniform(5, 35)))
    noise = change.coloured(rng.normal(0, 1, len(sound)).astype(np.float32), 2.0, rng)
    return change.mixed(sound, noise, float(rng.uniform(12, 50)))


def _cut_ends(sound: F32, rng: np.random.Generator) -> F32:
    """People begin to record late and stop early."""
    most = max(len(sound) // 12, 1)
    return np.asarray(sound[int(rng.integers(most)) : len(sound) - int(rng.integers(most))], np.float32)
