"""What cross-validation says about the network: accuracy by class, speaker and noise, with intervals: pure.

Rules:
- Intervals are drawn over speakers, never over clips: clips of one speaker are alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.commands.data import LABELS, SILENCE

_DRAWS, _SEED = 2000, 1


def figures(
    right: NDArray[np.bool_],
    labels: NDArray[np.intp],
    speakers: NDArray[np.str_],
    noisy: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Any]:
    """Return what the card shows.

    Args:
        right: (n,) whether the likeliest label was right, clean.
        labels: (n,) the truth.
        speakers: (n,) who spoke.
        noisy: the same as `right`, by signal-to-noise ratio.
    """
    words = labels != LABELS.index(SILENCE)
    by_speaker = np.array([right[speakers == name].mean() for name in np.unique(speakers[words])])
    return {
        "accuracy": share(right),
        "interval": interval(right, speakers),
        "speakers": len(by_speaker),
        "clips": len(labels),
        "by_class": {label: share(right[labels == index]) for index, label in enumerate(LABELS)},
        "by_speaker": {
            "worst": share(by_speaker[by_speaker.argmin() : by_speaker.argmin() + 1]),
            "tenth": round(float(np.quantile(by_speaker, 0.1)), 4),
            "median": round(float(np.median(by_speaker)), 4),
        },
        "by_noise": {
            snr: {"accuracy": share(values), "interval": interval(values, speakers)} for snr, values in noisy.items()
        },
    }


def share(values: NDArray[Any]) -> float:
    """Return the mean, in four digits."""
    return round(float(values.mean()), 4)


def interval(right: NDArray[np.bool_], speakers: NDArray[np.str_]) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy: speakers drawn again and again with replacement (cluster bootstrap)."""
    rng = np.random.default_rng(_SEED)
    _, unit = np.unique(speakers, return_inverse=True)
    hits = np.bincount(unit, right.astype(float))
    counts = np.bincount(unit).astype(float)
    drawn = rng.integers(len(counts), size=(_DRAWS, len(counts)))
    shares = hits[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)
