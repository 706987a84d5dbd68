"""Makes a few speakers sound like many: other throats, speeds, rooms, microphones, levels and noises.

Rules:
- Everything random comes from the generator passed in.
- Samples in, samples out, at the caller's rate; nothing here knows of features.
"""

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import resample

F32 = NDArray[np.float32]


def level(sound: F32) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if len(sound) else 0.0


def faster(sound: F32, rate_hz: int, low: float, high: float, rng: np.random.Generator) -> F32:
    """Return the sound played at another speed, which moves pitch and throat with it; `low` … `high` around 1."""
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return resample(sound, rate_hz, round(rate_hz * factor))


def moved(sound: F32, most: int, rng: np.random.Generator) -> F32:
    """Return the sound up to `most` samples earlier or later, silence where nothing is left."""
    by = int(rng.integers(-most, most + 1))
    return np.asarray(np.pad(sound, (max(by, 0), max(-by, 0)))[max(-by, 0) : max(-by, 0) + len(sound)], np.float32)


def echoed(sound: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """Return the sound in a room: exponentially decaying noise as its answer."""
    length = int(rng.uniform(0.05, 0.25) * rate_hz)
    decay = np.exp(-np.arange(length) / length * rng.uniform(4, 9))
    answer = rng.normal(0, 1, length) * decay * rng.uniform(0.05, 0.35)
    answer[0] = 1.0
    size = len(sound) + length - 1
    both = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(answer, size), size)
    return both[: len(sound)].astype(np.float32)


def coloured(sound: F32, strength: float, rng: np.random.Generator) -> F32:
    """Return the sound through a filter with a smooth random response; `strength` in nepers at most extremes."""
    spectrum = np.fft.rfft(sound)
    points = np.linspace(0, 1, 6)
    curve = np.interp(np.linspace(0, 1, len(spectrum)), points, rng.uniform(-strength, strength, len(points)))
    return np.fft.irfft(spectrum * np.exp(curve), len(sound)).astype(np.float32)


def excerpt(noises: dict[str, list[F32]], length: int, rng: np.random.Generator) -> F32:
    """Return `length` samples of some noise: every kind is as likely; never a stretch that is silent."""
    kinds = sorted(noises)
    for _ in range(8):
        clips = noises[kinds[int(rng.integers(len(kinds)))]]
        clip = clips[int(rng.integers(len(clips)))]
        start = int(rng.integers(max(len(clip) - length, 0) + 1))
        part = np.asarray(np.resize(clip[start : start + length], length), np.float32)
        if level(part) > 1e-4:
            return part
    return rng.normal(0, 1e-2, length).astype(np.float32)


def mixed(sound: F32, noise: F32, snr_db: float, speech_level: float | None = None) -> F32:
    """Return the sum at a signal-to-noise ratio, scaled down where it would clip.

    Args:
        sound: (n,).
        noise: (n,).
        snr_db: power of the sound over that of the noise.
        speech_level: root mean square that counts as the sound's, where it is none (silence).
    """
    loud = level(sound) if speech_level is None else speech_level
    both = sound + noise * np.float32(loud / max(level(noise), 1e-9) * 10 ** (-snr_db / 20))
    peak = float(np.abs(both).max(initial=0.0))
    return np.asarray(both / np.float32(max(peak, 1.0)), np.float32)
