"""Magnetic tiles from good tiles alone: five folds over ranges of numbers, each learnt from the others' good parts.

Rules:
- A defective picture is judged and never learnt from; its mask says only whether the heat map points at it.
- The limit that diverts nothing by itself comes from good tiles that the fold did not learn from.
"""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.anomaly.typical import Typical, judged_cells, learn, worst_place
from models.cells import Frozen
from models.magnetic_tile.data import FOLDS, INPUT, Photo
from models.magnetic_tile.fit import DEPTHS, STRIDE
from models.magnetic_tile.measure import Scored

SEED = 1


@dataclass(frozen=True)
class Seen:
    """Pictures as the frozen part sees them, with the cells that are judged."""

    values: list[NDArray[np.float16]]
    judged: list[NDArray[np.bool_]]


def see(photos: list[Photo]) -> Seen:
    """Run the frozen part over all pictures, about a minute for 900."""
    print(f"looking at {len(photos)} pictures", file=sys.stderr)
    frozen = Frozen(DEPTHS, INPUT.height, INPUT.width)
    values = [frozen.values(photo.picture) for photo in photos]
    return Seen(values, [judged_cells(photo.picture, STRIDE) for photo in photos])


def typical_of(photos: list[Photo], seen: Seen, chosen: NDArray[np.bool_]) -> Typical:
    """Learn from the good ones of the chosen pictures (n,)."""
    places = [i for i, photo in enumerate(photos) if chosen[i] and not photo.defective]
    return learn([seen.values[i] for i in places], [seen.judged[i] for i in places], SEED)


def cross_validated(photos: list[Photo], seen: Seen) -> Scored:
    """Judge every picture by what is typical of the good parts of the other folds."""
    folds = np.array([photo.fold for photo in photos])
    score = np.zeros(len(photos))
    heat: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(photos)
    for fold in range(FOLDS):
        typical = typical_of(photos, seen, folds != fold)
        for i in np.flatnonzero(folds == fold):
            score[i], heat[i] = worst_place(typical.distances(seen.values[i]), seen.judged[i])
    return Scored(photos, score, np.stack(heat))
