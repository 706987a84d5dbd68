"""Area under the ROC curve by ranks: pure, and quick enough to be had a thousand times for a bootstrap.

Rules:
- It is the chance that an event scores above what is none, ties counting half (Hanley and McNeil, Radiology 143, 1982):
  the value of scikit-learn's `roc_auc_score`, whose checks take many times as long as the sum.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Ranked:
    """Scores in their order, to be weighed again and again."""

    def __init__(self, event: NDArray[np.bool_], score: NDArray[Any]) -> None:
        self._event = event.astype(np.bool_)
        self._level = np.unique(score, return_inverse=True)[1]
        self._levels = int(self._level.max(initial=-1)) + 1

    def area(self, times: NDArray[Any]) -> float:
        """Return the area where each example counts so many times, (n,); not a number where one side is missing."""
        events = np.bincount(self._level, times * self._event, self._levels)
        others = np.bincount(self._level, times * ~self._event, self._levels)
        below = np.cumsum(others) - others / 2
        pairs = events.sum() * others.sum()
        return float(events @ below / pairs) if pairs else float("nan")


def auroc(event: NDArray[np.bool_], score: NDArray[Any]) -> float:
    """Return the area under the ROC curve; not a number if there is only one side.

    Args:
        event: (n,) whether it is one.
        score: (n,) higher is surer of an event.
    """
    return Ranked(event, score).area(np.ones(len(score)))
