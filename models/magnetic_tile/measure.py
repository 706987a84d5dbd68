"""Counts how well tiles are told apart, with intervals by part: pure.

Rules:
- The part is what is drawn again for an interval, never the picture.
- `by part` means one score per tile: the mean of its pictures' logits, under however many lights it was seen.
- A defect is found (pointing game) if the hottest cell or one beside it touches the mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.roc import auroc
from models.magnetic_tile.data import FREE, KINDS, Photo

F64 = NDArray[np.float64]
_DRAWS = 1000
_SEED = 0


@dataclass(frozen=True)
class Scored:
    """Pictures with their scores, higher is worse, and where the network looked."""

    photos: Sequence[Photo]
    score: F64
    """(n,)."""
    heat: NDArray[np.float32]
    """(n, rows, columns)."""


def figures(scored: Scored) -> dict[str, Any]:
    """Return all figures of a model card: AUROC by picture and by part, per kind and light, and the pointing game."""
    kinds = np.array([photo.kind for photo in scored.photos])
    bad, parts = kinds != FREE, np.array([photo.part for photo in scored.photos])
    lights = np.array([photo.light for photo in scored.photos])
    everything = np.ones(len(kinds), bool)
    return {
        "pictures": len(kinds),
        "parts": len(np.unique(parts)),
        "tiles_defective": len(np.unique(parts[bad])),
        "auroc_picture": _area(bad, scored.score, parts, everything),
        "auroc_part": _area(*by_part(bad, scored.score, parts)),
        "auroc_per_kind": {
            kind: {
                "pictures": int(np.sum(kinds == kind)),
                "tiles": len(np.unique(parts[kinds == kind])),
                **_area(bad, scored.score, parts, (kinds == kind) | ~bad),
            }
            for kind in KINDS
        },
        "auroc_per_light": {
            str(light): _area(bad, scored.score, parts, lights == light) for light in range(1, 1 + int(lights.max()))
        },
        "pointing": _share(found(scored), parts[_masked(scored)]),
        "pointing_per_kind": {
            kind: round(float(np.mean(found(scored)[kinds[_masked(scored)] == kind])), 4) for kind in KINDS
        },
    }


def by_part(bad: NDArray[np.bool_], score: F64, parts: NDArray[Any]) -> tuple[NDArray[np.bool_], F64, NDArray[Any]]:
    """Return (defective, mean score, part) of each tile; a run of numbers with both kinds of tile gives two."""
    keys, place = np.unique(parts * 2 + bad, return_inverse=True)
    mean = np.bincount(place, score) / np.bincount(place)
    return keys % 2 == 1, mean, keys // 2


def found(scored: Scored) -> NDArray[np.bool_]:
    """Return for each masked picture whether the hottest cell, or one beside it, touches the mask."""
    return np.array([_hits(scored.photos[int(i)], scored.heat[i]) for i in np.flatnonzero(_masked(scored))])


def worst(scored: Scored, count: int) -> list[str]:
    """Return the names of the lowest defects and the highest good pictures, `count` of each."""
    bad = np.array([photo.defective for photo in scored.photos])
    order = np.argsort(scored.score)
    missed = [scored.photos[i].name for i in order if bad[i]][:count]
    raised = [scored.photos[i].name for i in order[::-1] if not bad[i]][:count]
    return [f"missed {name}" for name in missed] + [f"raised {name}" for name in raised]


def interval(value: Callable[[NDArray[np.intp]], float], parts: NDArray[Any]) -> list[float]:
    """Return the 95 % bootstrap interval of a figure of positions (n,), parts being drawn again."""
    rng = np.random.default_rng(_SEED)
    places = [np.flatnonzero(parts == part) for part in np.unique(parts)]
    values = []
    for _ in range(_DRAWS):
        drawn = np.concatenate([places[i] for i in rng.integers(len(places), size=len(places))])
        values.append(value(drawn))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [round(float(low), 4), round(float(high), 4)]


def _area(
    bad: NDArray[np.bool_], score: F64, parts: NDArray[Any], chosen: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    some = np.arange(len(bad)) if chosen is None else np.flatnonzero(chosen)
    bad, score, parts = bad[some], score[some], parts[some]
    return {
        "auroc": round(auroc(bad, score), 4),
        "interval": interval(lambda drawn: auroc(bad[drawn], score[drawn]), parts),
    }


def _share(hits: NDArray[np.bool_], parts: NDArray[Any]) -> dict[str, Any]:
    return {
        "share": round(float(hits.mean()), 4),
        "interval": interval(lambda drawn: float(hits[drawn].mean()), parts),
        "pictures": len(hits),
    }


def _masked(scored: Scored) -> NDArray[np.bool_]:
    return np.array([bool(photo.mask.any()) for photo in scored.photos])


def _hits(photo: Photo, heat: NDArray[np.float32]) -> bool:
    rows, columns = heat.shape
    high, wide = photo.mask.shape[0] // rows, photo.mask.shape[1] // columns
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    top, left = max(int(row) - 1, 0) * high, max(int(column) - 1, 0) * wide
    return bool(photo.mask[top : (int(row) + 2) * high, left : (int(column) + 2) * wide].any())
