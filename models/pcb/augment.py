"""Draws training crops from scans: turned, mirrored, scaled, inverted, under other light and focus.

Rules:
- Everything random comes from the generator passed in; the same seed draws the same crops.
- Every crop around a defect has a chance to be answered by its clean twin, the same place of the clean scan.
- Inverting swaps copper and gap, so it swaps kinds as well: open and short, mousebite and spur, spurious copper and
  pin hole. One board gives the shapes of two.
- Neat letters, dots, rings, bars and lines are printed where there is only gap or only copper, and stay good: other
  boards carry other marks.
- Truth is per cell of the network: the middle of a defect's box is its kind, the box's edge counts for nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.pcb.data import Scan
from models.pcb.network import STRIDE

U8 = NDArray[np.uint8]

CROP = 160
"""Side of a crop in pixels: a multiple of the network's stride, and more than it sees around one cell."""
IGNORE = -1
_AT_DEFECT, _AT_TWIN, _DEFECTIVE = 0.40, 0.25, 0.15
"""Shares of crops at a defect, at the same place of its clean twin, anywhere on a defective scan; the rest are
anywhere on a clean scan."""
_INVERTED = 0.25
_PRINTED = 0.35
"""Share of crops with marks."""
_SWAPPED = np.array([0, 2, 1, 4, 3, 6, 5])
_MARKS = 300
"""Marks that are drawn beforehand: drawing them takes longer than the network takes for a crop."""
_APART = 4
"""Pixels of one colour around a mark."""
_LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+/.")
_FONTS = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_COMPLEX]
_CORE, _RIM = 0.5, 8.0
"""The middle half of a box (each way) is the defect; what is outside of it and nearer than 8 pixels counts for
nothing."""


@dataclass(frozen=True)
class Crop:
    """What the network trains on."""

    picture: U8
    """(CROP, CROP), gray."""
    truth: NDArray[np.int64]
    """(CROP / STRIDE, CROP / STRIDE): 0 for good, the kind's number, or IGNORE."""


class Crops:
    """An endless draw of crops from scans."""

    def __init__(self, scans: list[Scan], rng: np.random.Generator) -> None:
        self._rng = rng
        clean = {scan.name: scan for scan in scans if not scan.defective}
        self._boards: dict[str, list[tuple[Scan, Scan]]] = {}
        for scan in scans:
            if scan.defective:
                self._boards.setdefault(scan.board, []).append((scan, clean[scan.name]))
        self._marks = draw_marks(rng)
        self._weights = shares([len(pairs) for pairs in self._boards.values()])

    def draw(self) -> Crop:
        """Return the next crop."""
        rng = self._rng
        pairs = list(self._boards.values())[int(rng.choice(len(self._weights), p=self._weights))]
        defective, clean = pairs[rng.integers(len(pairs))]
        share = rng.random()
        centre = rng.uniform(0, len(clean.picture), 2)
        if share < _AT_DEFECT + _AT_TWIN:
            left, top, right, bottom = defective.boxes[rng.integers(len(defective.boxes))]
            centre = np.array([left + right, top + bottom]) / 2 + rng.uniform(-0.45, 0.45, 2) * CROP
        on_defective = share < _AT_DEFECT or _AT_DEFECT + _AT_TWIN <= share < _AT_DEFECT + _AT_TWIN + _DEFECTIVE
        scan = defective if on_defective else clean
        move = moved(centre, rng)
        picture = cv2.warpAffine(
            scan.picture, move, (CROP, CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        truth = _truth(scan, move)
        if rng.random() < _PRINTED:
            picture = with_marks(np.asarray(picture, np.uint8), truth, self._marks, rng)
        if rng.random() < _INVERTED:
            picture = 255 - picture
            truth = np.where(truth > 0, _SWAPPED[truth], truth)
        return Crop(other_light(np.asarray(picture, np.uint8), rng), truth)


def shares(sizes: list[int]) -> NDArray[np.float64]:
    """Return how often to draw from each board: by the root of its size, so that no board is all that is learnt."""
    weights = np.sqrt(sizes)
    return np.asarray(weights / weights.sum(), np.float64)


def draw_marks(rng: np.random.Generator) -> list[NDArray[np.bool_]]:
    """Return words, dots, rings, bars and lines, for `with_marks` to print."""
    return [_rough(_mark(rng), rng) for _ in range(_MARKS)]


def other_light(picture: U8, rng: np.random.Generator) -> U8:
    """Return the picture under another exposure, focus and sensor noise; half of all stay as they were."""
    if rng.random() < 0.5:
        return picture
    values: NDArray[np.floating] = picture.astype(np.float32)
    if rng.random() < 0.5:
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.1)), np.float32)
    low, high = rng.uniform(0, 50), rng.uniform(190, 255)
    values = low + values * (high - low) / 255
    values += rng.normal(0, rng.uniform(0, 6), values.shape).astype(np.float32)
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def moved(centre: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the matrix (2, 3) that brings `centre` to the crop's middle, turned, mirrored and scaled."""
    scale = np.exp(rng.uniform(np.log(0.75), np.log(1.35))) * np.exp(rng.normal(0, 0.05, 2))
    angle = np.deg2rad(90 * rng.integers(4) + (rng.uniform(-45, 45) if rng.random() < 0.3 else rng.normal(0, 2)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(scale)
    turn = turn @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
    return np.column_stack([turn, CROP / 2 - turn @ centre])


def with_marks(picture: U8, truth: NDArray[np.int64], marks: list[NDArray[np.bool_]], rng: np.random.Generator) -> U8:
    """Return the crop with a few marks, where there is one colour and no defect."""
    picture = picture.copy()
    taken = cv2.resize((truth != 0).astype(np.uint8), (CROP, CROP), interpolation=cv2.INTER_NEAREST) > 0
    for _ in range(rng.integers(2, 9)):
        mark = marks[rng.integers(len(marks))]
        size = np.array(mark.shape)
        if (size + 2 * _APART > CROP).any():
            continue
        top, left = (int(value) for value in rng.integers(_APART, CROP - _APART - size + 1))
        around = np.s_[top - _APART : top + size[0] + _APART, left - _APART : left + size[1] + _APART]
        darkest, brightest = int(picture[around].min()), int(picture[around].max())
        if brightest - darkest < 60 and not taken[around].any():
            picture[top : top + size[0], left : left + size[1]][mark] = 0 if darkest > 127 else 255
    return picture


def _mark(rng: np.random.Generator) -> U8:
    """Draw a word, dot, ring, bar or line on an empty crop, (CROP, CROP), 255 where it is."""
    empty = np.zeros((CROP, CROP), np.uint8)
    x, y = CROP // 4, CROP // 2
    kind = rng.integers(8)
    thickness = int(rng.integers(2, 6))
    if kind < 4:
        word = "".join(rng.choice(_LETTERS, rng.integers(1, 5)))
        font = int(rng.choice(_FONTS))
        cv2.putText(empty, word, (x, y), font, rng.uniform(0.6, 1.6), 255, min(thickness, 4))
    elif kind == 4:
        cv2.circle(empty, (x, y), int(rng.integers(6, 24)), 255, -1)
    elif kind == 5:
        cv2.circle(empty, (x, y), int(rng.integers(7, 24)), 255, thickness)
    elif kind == 6:
        cv2.rectangle(empty, (x, y), (x + int(rng.integers(8, 50)), y + int(rng.integers(8, 50))), 255, -1)
    else:
        cv2.line(empty, (x, y), (x + int(rng.integers(12, 90)), y), 255, thickness)
    turns = int(rng.integers(4))
    return np.ascontiguousarray(np.rot90(empty[:, :: int(rng.choice([-1, 1]))], turns))


def _rough(mark: U8, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return the mark alone, with edges as rough as a scan's."""
    grain = cv2.GaussianBlur(rng.normal(0, 1, mark.shape).astype(np.float32), (0, 0), 1.0)
    rough = cv2.GaussianBlur(mark.astype(np.float32) / 255, (0, 0), 0.8) + rng.uniform(0, 0.5) * grain > 0.5
    rows, columns = np.flatnonzero(mark.any(1)), np.flatnonzero(mark.any(0))
    return np.asarray(rough[rows[0] - 1 : rows[-1] + 2, columns[0] - 1 : columns[-1] + 2])


def _truth(scan: Scan, move: NDArray[np.float64]) -> NDArray[np.int64]:
    cells = CROP // STRIDE
    middles = (np.arange(cells) + 0.5) * STRIDE
    truth = np.zeros((cells, cells), np.int64)
    size = np.abs(move[:, :2]) @ np.maximum(scan.boxes[:, 2:] - scan.boxes[:, :2], 1).T / 2
    places = move[:, :2] @ (scan.boxes[:, :2] + scan.boxes[:, 2:]).T / 2 + move[:, 2:]
    away = [np.abs(middles[None] - places[axis][:, None]) for axis in (0, 1)]  # (defects, cells) each
    for across, down, half in zip(away[0], away[1], size.T, strict=True):
        near = (down <= half[1] + _RIM)[:, None] & (across <= half[0] + _RIM)[None]
        truth[near & (truth == 0)] = IGNORE
    for index, kind in enumerate(scan.kinds):
        across, down, half = away[0][index], away[1][index], np.maximum(size[:, index] * _CORE, STRIDE / 2)
        truth[(down <= half[1])[:, None] & (across <= half[0])[None]] = kind
    return truth
