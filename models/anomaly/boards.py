"""Printed circuit boards from clean scans alone: a network learns to see made-up faults, and is judged on real ones.

Every place of a board has another pattern, so nothing is typical; but what does not belong looks alike on all boards.
So clean scans get faults that are made up (after CutPaste: Li, Sohn, Yoon, Pfister 2021, arXiv:2104.04015), and the
network of `pcb` learns to find those, cell by cell.

Rules:
- No defective scan is learnt from, and none sets a range: clean scans do, every second one with made-up faults, or
  eight bits would end where defects begin. Both scans of a place are on the same side of every split.
- Two splits are told apart: places not seen of boards that were, and boards not seen at all.
- Crops are turned, scaled, lit and printed on as `pcb` does it, and half of them inverted: other boards are other.
"""

import sys
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export import golden, onnx_export
from export.quantize import quantize
from export.roc import auroc
from models.anomaly.faults import with_faults
from models.magnetic_tile.measure import interval
from models.pcb.augment import CROP, IGNORE, Crop, draw_marks, moved, other_light, shares, with_marks
from models.pcb.data import SIDE, Scan, as_values, pair_of
from models.pcb.fit import fit_on
from models.pcb.network import STRIDE, BoardNet

U8 = NDArray[np.uint8]

_SEED = 1
_FAULTY, _PRINTED, _INVERTED = 0.65, 0.35, 0.5
"""Shares of crops."""
_CELLS = CROP // STRIDE
_LEAST_PIXELS, _LEAST_IN_CELL = 10, 6
"""A fault that changes fewer counts for nothing; a cell is faulty that holds so many, and half of the fullest."""
_SEEN_SHARE = 0.6
"""So much of each board's places, the first ones in order of their names, is learnt from."""
_RANGE_SCANS, _RANGE_FAULTS = 64, 6
"""Scans, and how often every second one gets up to three faults."""


class FaultyCrops:
    """An endless draw of crops from clean scans, most of them with faults."""

    def __init__(self, scans: list[Scan], rng: np.random.Generator) -> None:
        self._rng = rng
        self._boards: dict[str, list[Scan]] = {}
        for scan in scans:
            self._boards.setdefault(scan.board, []).append(scan)
        self._marks = draw_marks(rng)
        self._shares = shares([len(places) for places in self._boards.values()])

    def draw(self) -> Crop:
        """Return the next crop, with 1 in the cells of a fault."""
        rng = self._rng
        places = list(self._boards.values())[int(rng.choice(len(self._shares), p=self._shares))]
        scan = places[rng.integers(len(places))]
        move = moved(rng.uniform(0, SIDE, 2), rng)
        size, border = (CROP, CROP), cv2.BORDER_REFLECT_101
        crop = cv2.warpAffine(scan.picture, move, size, flags=cv2.INTER_LINEAR, borderMode=border)
        picture = np.asarray(crop, np.uint8)
        truth = np.zeros((_CELLS, _CELLS), np.int64)
        if rng.random() < _PRINTED:
            picture = with_marks(picture, truth, self._marks, rng)
        if rng.random() < _FAULTY:
            picture, faults = with_faults(picture, rng)
            truth = cells_of(faults)
        if rng.random() < _INVERTED:
            picture = 255 - picture
        return Crop(other_light(picture, rng), truth)


def cells_of(faults: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Return the truth of each cell: 1 where most of a fault lies, IGNORE around it and where hardly any lies, else 0.

    Args:
        faults: (CROP, CROP) each, the pixels of one.
    """
    truth = np.zeros((_CELLS, _CELLS), np.int64)
    for fault in faults:
        count = fault.reshape(_CELLS, STRIDE, _CELLS, STRIDE).sum((1, 3))
        near = cv2.dilate((count > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        truth[near & (truth == 0)] = IGNORE
        if fault.sum() >= _LEAST_PIXELS:
            truth[count >= max(_LEAST_IN_CELL, count.max() / 2)] = 1
    return truth


def fit(scans: list[Scan], steps: int) -> BoardNet:
    """Return a network that learnt made-up faults on the clean ones of these scans."""
    clean = [scan for scan in scans if not scan.defective]
    return fit_on(FaultyCrops(clean, np.random.default_rng(_SEED)).draw, kinds=1, steps=steps, seed=_SEED)


def judged(scans: list[Scan], steps: int) -> dict[str, Any]:
    """Return the AUROC on real defects: of each board with only the others learnt from, of all boards so, with one
    threshold for all, and of places not seen of boards that were.
    """
    boards = sorted({scan.board for scan in scans})
    apart = {board: [scan for scan in scans if scan.board == board] for board in boards}
    unseen = {}
    for board, asked in apart.items():
        print(f"without board {board}", file=sys.stderr)
        unseen[board] = scores([scan for scan in scans if scan.board != board], asked, steps)
    late: set[str] = set()
    for asked in apart.values():
        names = sorted({scan.name for scan in asked})
        late.update(names[int(_SEEN_SHARE * len(names)) :])
    print("without the last places of each board", file=sys.stderr)
    asked = [scan for scan in scans if scan.name in late]
    places = scores([scan for scan in scans if scan.name not in late], asked, steps)
    every = [scan for board in boards for scan in apart[board]]
    return {
        "boards_never_seen": {
            **{board: _figures(apart[board], unseen[board]) for board in boards},
            "all": _figures(every, np.concatenate([unseen[board] for board in boards])),
        },
        "places_never_seen": _figures(asked, places),
    }


def scores(seen: list[Scan], asked: list[Scan], steps: int) -> NDArray[np.float64]:
    """Return how faulty each scan looks (n,) to the int8 form of a network that learnt from the clean of `seen`."""
    quantized = quantize(onnx_export.float_onnx(fit(seen, steps), (1, SIDE, SIDE)), range_values(seen))
    logits = golden.outputs(quantized.shipped, quantized.spec, as_values(asked))
    return logits[:, 1].astype(np.float64) - logits[:, 0]


def range_values(scans: list[Scan]) -> U8:
    """Return clean scans from all over the list, every second one with faults, (n, SIDE, SIDE, 1)."""
    clean, rng = [scan for scan in scans if not scan.defective], np.random.default_rng(_SEED)
    values = as_values([clean[int(place)] for place in np.linspace(0, len(clean) - 1, min(_RANGE_SCANS, len(clean)))])
    for value in values[::2]:
        for _ in range(_RANGE_FAULTS):
            value[..., 0], _ = with_faults(value[..., 0], rng)
    return values


def _figures(scans: list[Scan], score: NDArray[np.float64]) -> dict[str, Any]:
    bad, place = np.array([scan.defective for scan in scans]), np.array([pair_of(scan.name) for scan in scans])
    return {
        "scans": len(scans),
        "auroc": round(auroc(bad, score), 4),
        "interval": interval(lambda drawn: auroc(bad[drawn], score[drawn]), place),
    }
