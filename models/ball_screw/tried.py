"""What was tried for the figure by picture, each to be had again: `python -m models.ball_screw.tried WHAT --data DIR`.

Rules:
- Positions are judged as in the recipe, by int8 networks that never saw them; one thing differs from it.
- Nothing here ships: a bundle's figures are those of `train.py`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.roc import auroc
from export.scores import read
from models.ball_screw import augment
from models.ball_screw.measure import BUNDLE
from models.ball_screw.regions import false_alarms
from models.realdata import add_option, folder_of

_FIRST = 8
"""Pictures of a position that say what it looks like before there are pits."""
_LIGHTS = 2.0
_LEAST = 1e-6


def own_past(score: NDArray[np.float64], position: NDArray[Any], first: int = _FIRST) -> NDArray[np.float64]:
    """Return log-odds less the median of the position's first pictures, (n,), so that each is its own measure.

    Args:
        score: (n,) defect scores, in time within a position.
        position: (n,) of the screw.
        first: how many pictures are taken for clean.
    """
    kept = np.clip(score, _LEAST, 1 - _LEAST)
    odds = np.log(kept / (1 - kept))
    for name in np.unique(position):
        own = np.flatnonzero(position == name)
        odds[own] -= np.median(odds[own[:first]])
    return np.asarray(odds, np.float64)


def by_own_past() -> dict[str, Any]:
    """Return the figures by picture of the kept scores, as they are and against each position's own past."""
    scores = read(BUNDLE.with_suffix(".scores.npz"))
    assert scores.block is not None
    sample, found = scores.sample, {}
    for name, score in (("as it is", sample.score), ("own past", own_past(sample.score, scores.block))):
        found[name] = {
            "auroc": round(auroc(sample.event, score), 4),
            "false_alarms_at_95_recall": round(false_alarms(sample.event, score), 4),
        }
    return found


def by_lights(data: Path | None) -> dict[str, Any]:
    """Return the figures of networks whose crops differ twice as much in light, colour and contrast."""
    from models.ball_screw.data import DOUBTFUL, HELD_OUT, load_photos
    from models.ball_screw.fit import make_pool
    from models.ball_screw.train import POOL, SEED, cross_validated

    augment.LIGHT_SPREAD = _LIGHTS
    photos = load_photos(folder_of("ball-screw", data))
    training = [photo for photo in photos if photo.position != HELD_OUT and photo.name not in DOUBTFUL]
    return cross_validated(training, make_pool(training, POOL, SEED))[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.ball_screw.tried", description="What was tried.")
    parser.add_argument("what", choices=("own-past", "lights"))
    add_option(parser, "ball-screw")
    options = parser.parse_args()
    print(json.dumps(by_own_past() if options.what == "own-past" else by_lights(options.data)))
