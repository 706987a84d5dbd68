"""Changed copies of clips: for each, what the teacher hears (no noise) and what the network hears (noise mixed in).

Rules:
- Everything random comes from the generator passed in; noise comes from the caller's folds.
- Silence with noise is silence: noise stands at the level that it would have beside a word.
"""

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import audio_tensor
from models.commands.data import INPUT, LABELS, SILENCE, Clip
from models.sounds import augment as change

F32 = NDArray[np.float32]
Noises = dict[str, list[F32]]

SPEECH_LEVEL = 0.06
"""Root mean square of a second with a word in it: about the median of the clips."""
_NOISY_SHARE = 0.6
_SNR_DB = (-3.0, 25.0)
_LENGTH = INPUT.sample_rate_hz


def versions(clips: list[Clip], noises: Noises, count: int, seed: int) -> tuple[F32, F32]:
    """Return features (count × clips, 49, 10, 1) for the teacher and for the network, clip by clip within a version."""
    rng = np.random.default_rng(seed)
    quiet, noisy = [], []
    for _ in range(count):
        for clip in clips:
            changed = _changed(clip, rng)
            quiet.append(features(changed))
            noisy.append(features(_with_noise(clip, changed, noises, rng)))
    return np.concatenate(quiet), np.concatenate(noisy)


def features(samples: F32) -> F32:
    """Return the features of one sound, (1, 49, 10, 1)."""
    return audio_tensor(samples, INPUT.sample_rate_hz, INPUT)


def at_snr(clips: list[Clip], noises: Noises, snr_db: float | None, seed: int) -> F32:
    """Return features (clips, 49, 10, 1) with one noise per clip at a signal-to-noise ratio; None for clean."""
    rng = np.random.default_rng(seed)
    if snr_db is None:
        return np.concatenate([features(clip.samples) for clip in clips])
    return np.concatenate([features(noisy(clip, clip.samples, noises, snr_db, rng)) for clip in clips])


def noisy(clip: Clip, samples: F32, noises: Noises, snr_db: float, rng: np.random.Generator) -> F32:
    """Return samples of a clip with an excerpt of some noise."""
    silent = LABELS[clip.label] == SILENCE
    noise = change.excerpt(noises, len(samples), rng)
    return change.mixed(samples, noise, snr_db, SPEECH_LEVEL if silent else None)


def _changed(clip: Clip, rng: np.random.Generator) -> F32:
    sound = change.faster(clip.samples, INPUT.sample_rate_hz, 0.87, 1.15, rng)
    missing = max(0, _LENGTH - len(sound))
    sound = np.pad(sound, (missing // 2, missing - missing // 2))[:_LENGTH].astype(np.float32)
    sound = change.moved(sound, INPUT.sample_rate_hz // 10, rng)
    if rng.random() < 0.25:
        sound = change.echoed(sound, INPUT.sample_rate_hz, rng)
    if rng.random() < 0.4:
        sound = change.coloured(sound, 0.5, rng)
    return sound


def _with_noise(clip: Clip, sound: F32, noises: Noises, rng: np.random.Generator) -> F32:
    if rng.random() > _NOISY_SHARE:
        return sound
    return noisy(clip, sound, noises, float(rng.uniform(*_SNR_DB)), rng)
