"""Reads the DeepPCB scans of printed circuit boards with the boxes of their defects, grouped by board.

Rules:
- The unit of every split is the board; the clean and the defective scan of one place are one pair and stay together.
- Pictures go through the device's own `edge.preprocess`, so training sees what the device sees.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.preprocess import image_tensor
from edge.wire.manifest import ImageInput

U8 = NDArray[np.uint8]

SIDE = 640
INPUT = ImageInput(width=SIDE, height=SIDE, color="gray", min_side=160)
KINDS = ["open", "short", "mousebite", "spur", "spurious_copper", "pin_hole"]
"""In the order of the numbers 1 to 6 in the box files, which are the labels' indices too."""
LABELS = ["good", *KINDS]


@dataclass(frozen=True)
class Scan:
    """One scan as the network takes it, with the boxes of its defects."""

    name: str
    """Of the file, without folder; both scans of a pair have the same."""
    defective: bool
    picture: U8
    """(SIDE, SIDE), gray; copper is dark."""
    boxes: NDArray[np.float32]
    """(defects, 4): left, top, right, bottom in pixels of `picture`."""
    kinds: NDArray[np.intp]
    """(defects,) indices into LABELS, from 1."""

    @property
    def board(self) -> str:
        return board_of(self.name)


def load_scans(folder: Path) -> list[Scan]:
    """Read all scans of `folder`/{good,defect}.

    Args:
        folder: the folder `pcb`.

    Returns:
        Sorted by name, the clean scan of a pair before the defective one.

    Raises:
        FileNotFoundError: a defective scan has no file with its boxes.
    """
    paths = sorted(folder.glob("*/*.jpg"), key=lambda path: (path.name, path.parent.name != "good"))
    return [_scan(path) for path in paths]


def board_of(name: str) -> str:
    """Return the board from a file's name, for example `00041`."""
    return Path(name).name.split("_")[0]


def pair_of(name: str) -> str:
    """Return what both scans of one place have in common, for example `00041_00041012`."""
    return Path(name).stem


def as_values(scans: list[Scan]) -> U8:
    """Return scans as the device's preprocessing gives them, (n, SIDE, SIDE, 1)."""
    return np.stack([scan.picture for scan in scans])[..., None]


def digest_of_files(folder: Path) -> str:
    """Return one SHA-256 over the names and bytes of all files of a folder, in their order."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.glob("*/*") if path.is_file()):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_boxes(path: Path) -> NDArray[np.float32]:
    """Return the rows (defects, 5) of a box file: left, top, right, bottom, kind from 1 to 6."""
    rows = [[float(value) for value in line.split()] for line in path.read_text().splitlines() if line.strip()]
    return np.array(rows, np.float32).reshape(-1, 5)


def _scan(path: Path) -> Scan:
    whole = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
    defective = path.parent.name != "good"
    rows = read_boxes(path.with_suffix(".boxes.txt")) if defective else np.zeros((0, 5), np.float32)
    across, down = SIDE / whole.shape[1], SIDE / whole.shape[0]
    boxes = rows[:, :4] * np.array([across, down, across, down], np.float32)
    return Scan(path.name, defective, image_tensor(whole, INPUT)[0, :, :, 0], boxes, rows[:, 4].astype(np.intp))
