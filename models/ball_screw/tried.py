"""What was tried for the figure by picture, from the kept scores: `python -m models.ball_screw.tried`.

Rules:
- Scores are those beside the bundle: each position by a network that never saw it; nothing is trained.
- Nothing here ships: a device judges each picture for itself.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.roc import auroc
from export.scores import read
from models.ball_screw.measure import BUNDLE
from models.ball_screw.regions import false_alarms

_PAST = 8
"""Pictures of a position that say what it looks like before there are pits."""
_BEGINNING = 2
"""Pictures at the beginning of each run of pitted ones."""
_TOGETHER = 3
_LEAST = 1e-6

F64 = NDArray[np.float64]


def figures() -> dict[str, dict[str, float]]:
    """Return AUROC and false alarms by picture of each way to use the kept scores."""
    scores = read(BUNDLE.with_suffix(".scores.npz"))
    assert scores.block is not None
    pitted, position = scores.sample.event, scores.block
    odds = _odds(scores.sample.score)
    own = own_past(odds, position)
    later = ~beginnings(pitted, position)
    return {
        "as it is": _figures(pitted, odds),
        "against the position's own past": _figures(pitted, own),
        f"the mean of {_TOGETHER} pictures in a row": _figures(pitted, together(odds, position)),
        "both": _figures(pitted, together(own, position)),
        f"without the first {_BEGINNING} pictures of each run of pitted ones": _figures(pitted[later], odds[later]),
    }


def own_past(odds: F64, position: NDArray[Any], first: int = _PAST) -> F64:
    """Return scores less the median of the position's first pictures, (n,), so that each is its own measure.

    Args:
        odds: (n,) in time within a position.
        position: (n,) of the screw.
        first: how many pictures are taken for clean.
    """
    found = odds.copy()
    for name in np.unique(position):
        here = np.flatnonzero(position == name)
        found[here] -= np.median(odds[here[:first]])
    return found


def together(odds: F64, position: NDArray[Any], count: int = _TOGETHER) -> F64:
    """Return the mean of each picture's score and those just before it at its position, (n,)."""
    found = odds.copy()
    for name in np.unique(position):
        here = np.flatnonzero(position == name)
        for place in range(len(here)):
            found[here[place]] = odds[here[max(place - count + 1, 0) : place + 1]].mean()
    return found


def beginnings(pitted: NDArray[np.bool_], position: NDArray[Any], count: int = _BEGINNING) -> NDArray[np.bool_]:
    """Return which pictures are among the first of a run of pitted ones at their position, (n,)."""
    found = np.zeros(len(pitted), np.bool_)
    for name in np.unique(position):
        here = np.flatnonzero(position == name)
        run = 0
        for place in here:
            run = run + 1 if pitted[place] else 0
            found[place] = 0 < run <= count
    return found


def _odds(score: F64) -> F64:
    kept = np.clip(score, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def _figures(pitted: NDArray[np.bool_], score: F64) -> dict[str, float]:
    return {
        "auroc": round(auroc(pitted, score), 4),
        "false_alarms_at_95_recall": round(false_alarms(pitted, score), 4),
    }


if __name__ == "__main__":
    print(json.dumps(figures(), indent=1))
