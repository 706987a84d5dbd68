"""Reads the photographs of magnetic tiles with their masks, and says which of them show the same part.

Rules:
- A file's number counts on while tiles are turned under changing light, so neighbouring numbers are the same tile:
  a part is a run of numbers without a gap, and every split, interval and bound goes by part.
- Folds are ranges of numbers, cut only at wide gaps.
- Pictures go through the device's own `edge.preprocess`, so training sees what the device sees.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.preprocess import image_tensor, resize
from edge.wire.manifest import ImageInput

U8 = NDArray[np.uint8]

INPUT = ImageInput(width=640, height=400, color="gray", resize="letterbox")
"""The largest picture is 632 × 398: none loses a pixel, the smallest are enlarged 1.8 times."""
LABELS = ["good", "defect"]
KINDS = ("blowhole", "break", "crack", "fray", "uneven")
FREE = "free"
FOLDS = 5
SAME_PART = 200
"""Numbers at most this far apart show the same tile; a tile under its six lights spans about 100."""
_WIDE_GAP = 500
"""A fold ends only where at least this many numbers lie between two pictures."""


@dataclass(frozen=True)
class Photo:
    """One picture as the network takes it, with its mask."""

    name: str
    number: int
    light: int
    """1 (dark) to 6 (bright); 0 for three pictures without it."""
    kind: str
    """One of `KINDS`, or `free`."""
    part: int
    """Pictures with the same value show the same tile."""
    fold: int
    """0 to FOLDS − 1."""
    picture: U8
    """(INPUT.height, INPUT.width), gray."""
    mask: U8
    """(INPUT.height, INPUT.width), 0 or 1: where the defect is, empty if there is none."""
    inside: tuple[int, int, int, int]
    """left, top, right, bottom of the photograph in `picture`; around it letterboxing is black."""

    @property
    def defective(self) -> bool:
        return self.kind != FREE


def load_photos(folder: Path) -> list[Photo]:
    """Read all pictures of `folder`/{free,blowhole,break,crack,fray,uneven}, sorted by number.

    Raises:
        FileNotFoundError: there are no pictures.
    """
    paths = sorted(folder.glob("*/exp*.jpg"), key=lambda path: (number_of(path.name), path.name))
    if not paths:
        raise FileNotFoundError(f"{folder}: expected {FREE}/exp*_num_*.jpg and the like, found no picture")
    numbers = [number_of(path.name) for path in paths]
    parts, folds = parts_of(numbers), folds_of(numbers)
    return [_photo(path, part, fold) for path, part, fold in zip(paths, parts, folds, strict=True)]


def number_of(name: str) -> int:
    """Return the running number in a file's name, for example 108719 in `exp1_num_108719.jpg`."""
    found = re.search(r"_num_(\d+)", name)
    if found is None:
        raise ValueError(f"{name}: expected a name such as exp1_num_108719.jpg")
    return int(found.group(1))


def parts_of(numbers: Sequence[int]) -> list[int]:
    """Return the part of each picture, counted from 0, for numbers in ascending order."""
    gaps = np.diff(np.asarray(numbers), prepend=numbers[0])
    return [int(part) for part in np.cumsum(gaps > SAME_PART)]


def folds_of(numbers: Sequence[int], count: int = FOLDS) -> list[int]:
    """Return the fold of each picture: ranges of about equally many pictures, cut at wide gaps only."""
    gaps = np.diff(np.asarray(numbers), prepend=numbers[0])
    cuts = np.flatnonzero(gaps > _WIDE_GAP)
    wanted = np.arange(1, count) * len(numbers) / count
    chosen = sorted({int(cuts[np.argmin(np.abs(cuts - place))]) for place in wanted}) if len(cuts) else []
    return [int(fold) for fold in np.searchsorted(chosen, np.arange(len(numbers)), side="right")]


def digest_of_files(paths: Sequence[Path]) -> str:
    """Return one SHA-256 over the names and bytes of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _photo(path: Path, part: int, fold: int) -> Photo:
    original = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
    rows, columns = original.shape[:2]
    kind = path.parent.name
    mask = np.zeros((rows, columns), np.uint8)
    if kind != FREE:
        drawn = cv2.imread(str(path.with_suffix("")) + ".mask.png", cv2.IMREAD_GRAYSCALE)
        mask = (np.asarray(drawn, np.uint8) > 127).astype(np.uint8) * 255
    scale = min(INPUT.width / columns, INPUT.height / rows)
    width, height = round(columns * scale), round(rows * scale)
    left, top = (INPUT.width - width) // 2, (INPUT.height - height) // 2
    return Photo(
        name=path.name,
        number=number_of(path.name),
        light=int(path.name[3]),
        kind=kind,
        part=part,
        fold=fold,
        picture=image_tensor(original, INPUT)[0, :, :, 0],
        mask=(resize(mask, INPUT.width, INPUT.height, keep_aspect=True) > 127).astype(np.uint8),
        inside=(left, top, left + width, top + height),
    )
