"""Isotonic calibration of one label's probability: any rising curve, not only a straight line in log-odds. Pure.

Rules:
- Pooled adjacent violators (Zadrozny and Elkan 2002), each block put at the mean of its scores and joined by straight
  lines (centred isotonic regression: Oron and Flournoy 2017, arXiv:1701.05964), so that two scores stay apart and
  keep their order: thresholds are chosen among them.
- A block says (k + ½) / (n + 1), not k / n: no error among few is not certainty.
- Beyond the outermost blocks the curve goes on to a tenth of what they leave to zero and to one.
"""

import numpy as np
from numpy.typing import NDArray

_BEYOND = 0.1


def knots(chances: NDArray[np.float64], events: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return the curve's points (probability given, probability right), both rising.

    Args:
        chances: (n,) what the network says of the label, 0…1.
        events: (n,) whether it is the label.
    """
    from sklearn.isotonic import IsotonicRegression

    order = np.argsort(chances, kind="stable")
    x, y = chances[order], events[order].astype(np.float64)
    level = IsotonicRegression().fit(x, y).predict(x)
    starts = np.flatnonzero(np.diff(level, prepend=-1.0))
    sizes = np.diff(np.append(starts, len(x)))
    centres = np.add.reduceat(x, starts) / sizes
    shares = (np.add.reduceat(y, starts) + 0.5) / (sizes + 1.0)
    points = _rising(centres, np.maximum.accumulate(shares))
    first, last = points[0][1] * _BEYOND, 1.0 - (1.0 - points[-1][1]) * _BEYOND
    return _rounded([(0.0, first), *points, (1.0, last)])


def _rising(centres: NDArray[np.float64], shares: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Drop points that do not rise, and those at the very ends."""
    kept: list[tuple[float, float]] = []
    for x, y in zip(centres.tolist(), shares.tolist(), strict=True):
        if not kept or (x > kept[-1][0] + 1e-6 and y > kept[-1][1] + 1e-6):
            kept.append((min(max(x, 1e-6), 1.0 - 1e-6), y))
    return kept


def _rounded(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(round(x, 7), round(y, 7)) for x, y in points]
