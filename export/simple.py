"""Simple features of pictures and sounds, and the linear model on them: what a trained network has to beat.

Rules:
- Features are hand-made: colours, edges by direction and place, fine texture; for sound the spectrum over time.
- Figures are cross-validated by group, never on what the model has seen.
"""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.preprocess import audio_tensor, resample
from edge.wire.manifest import AudioInput

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_SIDE = 64
_CELLS = 8
_DIRECTIONS = 8
_SOUND = AudioInput(sample_rate_hz=8000, window_s=1.0)
_FOLDS = 4


def thumbnail(picture: NDArray[np.uint8]) -> F32:
    """Return the picture's gray values at 32 × 32, mean 0 and length 1; for finding near duplicates."""
    gray = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA)
    flat = gray.astype(np.float32).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


def of_picture(picture: NDArray[np.uint8]) -> F32:
    """Return about 700 numbers for a picture (height, width, 3) BGR."""
    small = cv2.resize(picture, (2 * _SIDE, 2 * _SIDE), interpolation=cv2.INTER_AREA)
    gray = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    colours = [np.histogram(small[..., channel], 16, (0, 256))[0] / small[..., 0].size for channel in range(3)]
    across, down = cv2.Sobel(gray, cv2.CV_32F, 1, 0), cv2.Sobel(gray, cv2.CV_32F, 0, 1)
    strength, direction = np.hypot(across, down), np.arctan2(down, across) % np.pi
    which = np.minimum((direction / np.pi * _DIRECTIONS).astype(int), _DIRECTIONS - 1)
    edges = [_cells(np.where(which == one, strength, 0)).ravel() for one in range(_DIRECTIONS)]
    fine = _cells(np.abs(cv2.Laplacian(gray, cv2.CV_32F)))
    extremes = [np.quantile(values, [0.5, 0.9, 0.99, 1.0]) for values in (strength, fine, gray)]
    return np.concatenate([*colours, *edges, fine.ravel(), _cells(gray).ravel(), *extremes]).astype(np.float32)


def of_sound(samples: F32, rate_hz: int) -> F32:
    """Return the log-mel spectrum of the loudest second in six parts (mean and spread), and the length."""
    sound = resample(samples, rate_hz, _SOUND.sample_rate_hz)
    values = audio_tensor(sound, _SOUND.sample_rate_hz, _SOUND)[0, :, :, 0]
    parts = np.array_split(values, 6)
    return np.concatenate(
        [*(part.mean(0) for part in parts), *(part.std(0) for part in parts), [len(sound) / _SOUND.sample_rate_hz]]
    ).astype(np.float32)


def cross_validated(features: F32, labels: NDArray[np.intp], groups: Sequence[str], seed: int) -> F64 | None:
    """Return probabilities (n, classes) of a linear model that never saw the example's group.

    None where the groups are too few, or a class lies in a single group.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    count = int(labels.max()) + 1
    fewest = min(
        len({group for group, label in zip(groups, labels, strict=True) if label == one}) for one in range(count)
    )
    if fewest < 2:
        return None
    chances = np.zeros((len(labels), count))
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=seed)
    for train, test in folds.split(features, labels, list(groups)):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=300, class_weight="balanced"))
        model.fit(features[train], labels[train])
        chances[np.ix_(test, model.classes_)] = model.predict_proba(features[test])
    return chances


def neighbours(features: F32, labels: NDArray[np.intp], groups: Sequence[str], count: int = 5) -> F64:
    """Return for each example the share of its nearest neighbours of other groups that have its label."""
    from sklearn.preprocessing import StandardScaler

    values = StandardScaler().fit_transform(features)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1]
    squares = (values**2).sum(1)
    shares = np.ones(len(labels))
    for row in range(len(labels)):
        distances = squares - 2 * values @ values[row]
        distances[numbers == numbers[row]] = np.inf
        nearest = np.argsort(distances, kind="stable")[:count]
        shares[row] = float(np.mean(labels[nearest] == labels[row]))
    return shares


def _cells(values: NDArray[Any]) -> F32:
    side = values.shape[0] // _CELLS
    return np.asarray(values.reshape(_CELLS, side, _CELLS, side).mean((1, 3)), np.float32)
