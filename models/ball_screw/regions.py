"""Counts how well pits are told apart where they are: by squares of the track, from heat maps.

Rules:
- A square of 64 × 64 pixels is pitted if an outline covers some pixels of it, and left out if it covers fewer; its
  score is its hottest cell. Squares off the track do not count.
- Squares of one picture, and pictures of one position, are alike: the interval draws pictures again and is still too
  narrow.
- `python -m models.ball_screw.regions` measures the bundle on the position that it never saw; the other positions'
  figures, each by a network that never saw it, are made in training and stand in the manifest.
"""

import argparse
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import load
from export import golden
from export.roc import Ranked, auroc
from models.ball_screw.augment import mask_of
from models.ball_screw.data import HELD_OUT, Photo, as_values, load_photos, track_cells
from models.ball_screw.measure import BUNDLE
from models.ball_screw.network import STRIDE
from models.realdata import add_option, folder_of

_CELLS = 4
"""Cells of a square, each way."""
_PIXELS = 12
"""Pixels under outlines from which a square is pitted."""
RECALL = 0.95
_BOOTSTRAP = 500

F32 = NDArray[np.float32]


def figures(photos: list[Photo], heat: F32) -> dict[str, Any]:
    """Return AUROC by square with its interval, and the share of clean squares that score as 95 % of pitted ones do.

    Args:
        photos: pictures of the bench.
        heat: (n, rows, columns) heat maps of networks that never saw their position.
    """
    pitted, score, picture = squares(photos, heat)
    rng = np.random.default_rng(0)
    ranked, count = Ranked(pitted, score), len(photos)
    drawn = (np.bincount(rng.integers(count, size=count), minlength=count)[picture] for _ in range(_BOOTSTRAP))
    low, high = np.nanquantile([ranked.area(times) for times in drawn], [0.025, 0.975])
    return {
        "squares": len(pitted),
        "pitted": int(pitted.sum()),
        "auroc": round(auroc(pitted, score), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "false_alarms_at_95_recall": round(false_alarms(pitted, score), 4),
    }


def squares(photos: list[Photo], heat: F32) -> tuple[NDArray[np.bool_], F32, NDArray[np.intp]]:
    """Return (pitted, score, number of the picture) of every square of the track that counts."""
    track = _by_square(track_cells(STRIDE).astype(np.float32)).max(-1) > 0
    pitted, score, picture = [], [], []
    for number, photo in enumerate(photos):
        rows, columns = track_cells(STRIDE).shape
        covered = mask_of(photo).reshape(rows, STRIDE, columns, STRIDE).sum((1, 3))
        pixels = _by_square(covered).sum(-1)
        counts = track & ((pixels == 0) | (pixels >= _PIXELS))
        pitted.append((pixels >= _PIXELS)[counts])
        score.append(_by_square(heat[number]).max(-1)[counts])
        picture.append(np.full(int(counts.sum()), number, np.intp))
    return np.concatenate(pitted), np.concatenate(score), np.concatenate(picture)


def false_alarms(pitted: NDArray[np.bool_], score: NDArray[Any]) -> float:
    """Return the share of what is clean that scores as high as 95 % of what is pitted."""
    limit = np.sort(score[pitted])[int((1 - RECALL) * pitted.sum())]
    return float(np.mean(score[~pitted] >= limit))


def _by_square(cells: F32) -> F32:
    """Return (squares down, squares across, cells of one) for (rows, columns); what is over at the edges is cut off."""
    down, across = cells.shape[0] // _CELLS, cells.shape[1] // _CELLS
    whole = cells[: down * _CELLS, : across * _CELLS].reshape(down, _CELLS, across, _CELLS)
    return whole.transpose(0, 2, 1, 3).reshape(down, across, _CELLS**2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.ball_screw.regions", description="Measure by region.")
    add_option(parser, "ball-screw")
    options = parser.parse_args()
    shown = [p for p in load_photos(folder_of("ball-screw", options.data)) if p.position == HELD_OUT]
    spec, model = load(BUNDLE).model("onnx")
    answers = golden.split(golden.answers(bytes(model), spec, as_values(shown)), spec)
    assert answers.heatmap is not None
    print(json.dumps({"position": HELD_OUT, **figures(shown, answers.heatmap)}))
