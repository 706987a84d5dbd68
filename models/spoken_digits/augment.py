"""Makes a few speakers sound like many: other throats, speeds, rooms, microphones and noises.

Rules:
- Everything random comes from the generator passed in.
- What changes the sound is done on samples; what only moves its features (time, mel axis, gaps) is done on features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from edge.preprocess import audio_tensor, resample
from models.spoken_digits.data import INPUT, Recording

F32 = NDArray[np.float32]

_QUIETEST_PEAK, _LOUDEST_PEAK = 0.02, 0.95


def features(recordings: list[Recording], versions: int, rng: np.random.Generator) -> tuple[F32, NDArray[np.intp]]:
    """Return features of changed copies, (n × versions, frames, mel_bands, 1), and their digits."""
    rate_hz = INPUT.sample_rate_hz
    values = [
        audio_tensor(other_room(recording.samples, rng), rate_hz, INPUT)
        for _ in range(versions)
        for recording in recordings
    ]
    return np.concatenate(values), np.array([r.digit for _ in range(versions) for r in recordings], np.intp)


def plain_features(recordings: list[Recording]) -> tuple[F32, NDArray[np.intp]]:
    """Return features of recordings as they are, (n, frames, mel_bands, 1), and their digits."""
    values = [audio_tensor(recording.samples, INPUT.sample_rate_hz, INPUT) for recording in recordings]
    return np.concatenate(values), np.array([r.digit for r in recordings], np.intp)


def other_room(samples: F32, rng: np.random.Generator) -> F32:
    """Return the word at another speed and level, in another room, through another microphone, with noise."""
    rate_hz = INPUT.sample_rate_hz
    sound = resample(samples, rate_hz, round(rate_hz * float(np.exp(rng.uniform(np.log(0.82), np.log(1.22))))))
    if rng.random() < 0.5:
        sound = _cut_ends(sound, rng)
    before, after = (np.zeros(int(rng.uniform(0, 0.15) * rate_hz), np.float32) for _ in range(2))
    sound = np.concatenate([before, sound, after])
    if rng.random() < 0.4:
        sound = _echoed(sound, rng)
    if rng.random() < 0.6:
        sound = _coloured(sound, rng, 0.6)
    peak = np.exp(rng.uniform(np.log(_QUIETEST_PEAK), np.log(_LOUDEST_PEAK)))
    sound = sound * (peak / max(float(np.abs(sound).max(initial=0.0)), 1e-6))
    if rng.random() < 0.7:
        noise = _coloured(rng.normal(0, 1, len(sound)).astype(np.float32), rng, 2.0)
        share = 10 ** (-rng.uniform(8, 45) / 20)
        sound = sound + noise * (share * _level(sound) / max(_level(noise), 1e-9))
    return np.asarray(np.clip(sound, -1, 1), np.float32)


def other_features(values: Tensor, rng: np.random.Generator) -> Tensor:
    """Return features (n, 1, frames, bands) stretched and moved in time and on the mel axis, with gaps."""
    count, _, frames, bands = values.shape
    time = np.exp(rng.uniform(np.log(0.8), np.log(1.25), count))
    pitch = np.exp(rng.uniform(np.log(0.87), np.log(1.15), count))
    move = rng.uniform(-0.15, 0.15, count)
    shape = np.zeros((count, 2, 3), np.float32)
    shape[:, 0, 0], shape[:, 0, 2] = pitch, pitch - 1
    shape[:, 1, 1], shape[:, 1, 2] = time, move
    grid = functional.affine_grid(torch.from_numpy(shape), [count, 1, frames, bands], align_corners=True)
    floor = values.amin((2, 3), keepdim=True)
    moved = functional.grid_sample(values - floor, grid, padding_mode="zeros", align_corners=True) + floor
    for row in range(count):
        if rng.random() < 0.5:
            start, width = int(rng.integers(frames)), int(rng.integers(1, 8))
            moved[row, :, start : start + width] = floor[row, 0, 0, 0]
        if rng.random() < 0.5:
            start, width = int(rng.integers(bands)), int(rng.integers(1, 6))
            moved[row, :, :, start : start + width] = floor[row, 0, 0, 0]
    return moved + torch.from_numpy(rng.normal(0, 0.12, (count, 1, 1, 1)).astype(np.float32))


def _cut_ends(sound: F32, rng: np.random.Generator) -> F32:
    """Recorders cut words short."""
    most = max(len(sound) // 12, 1)
    return np.asarray(sound[int(rng.integers(most)) : len(sound) - int(rng.integers(most))], np.float32)


def _echoed(sound: F32, rng: np.random.Generator) -> F32:
    """The sound in a room: exponentially decaying noise as its answer."""
    length = int(rng.uniform(0.05, 0.25) * INPUT.sample_rate_hz)
    decay = np.exp(-np.arange(length) / length * rng.uniform(4, 9))
    answer = rng.normal(0, 1, length) * decay * rng.uniform(0.05, 0.35)
    answer[0] = 1.0
    size = len(sound) + length - 1
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(answer, size), size)
    return both[: len(sound)].astype(np.float32)


def _coloured(sound: F32, rng: np.random.Generator, strength: float) -> F32:
    """The sound through a filter with a smooth random response; `strength` in nepers at most extremes."""
    spectrum = np.fft.rfft(sound)
    points = np.linspace(0, 1, 6)
    curve = np.interp(np.linspace(0, 1, len(spectrum)), points, rng.uniform(-strength, strength, len(points)))
    return np.fft.irfft(spectrum * np.exp(curve), len(sound)).astype(np.float32)


def _level(sound: F32) -> float:
    return float(np.sqrt(np.mean(np.square(sound)))) if len(sound) else 0.0
