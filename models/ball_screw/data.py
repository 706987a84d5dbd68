"""Reads the BSData photographs of ball screws with their outlines of pits, grouped by position.

Rules:
- The unit of every split is the position (axial and angle) on the screw; pictures of one position never straddle it.
- Pictures go through the device's own `edge.preprocess`, so training sees what the device sees.
- Two pictures labelled good show the pits of the pictures before them: training leaves them out, figures do not.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.preprocess import resize
from edge.wire.manifest import ImageInput

U8 = NDArray[np.uint8]

INPUT = ImageInput(width=1024, height=416)
"""About the pictures' own shape and size: the first pits are 8 to 10 pixels wide, so little may be lost."""
LABELS = ["good", "pitting"]
HELD_OUT = "305000_090"
"""The position that training and thresholds never see: the farthest from the other three along the screw."""
OTHER_MACHINES = "KGT"
"""Pictures of pits on screws of other machines (names starting with KGT): one group of their own."""
_TRACK_ABOVE = [(30, 245), (128, 195), (256, 155), (448, 105), (640, 72), (900, 40), (965, 60)]
_TRACK_BELOW = [(965, 172), (768, 208), (576, 250), (384, 290), (192, 345), (64, 400), (20, 380)]
TRACK = np.array([*_TRACK_ABOVE, *_TRACK_BELOW], np.int32)
"""The groove that the bench's camera looks into, x and y in pixels of INPUT: the same in every picture of the bench.
What lies in the grooves beside it is seen askew, never outlined, and full of grease at some positions."""
DOUBTFUL = frozenset({"01_200916071457_462500_045_crop_1.jpg", "01_200916071806_585000_090_crop_1.jpg"})
"""Labelled good, but taken after days of pitting at the same place, with the pits in plain view."""


@dataclass(frozen=True)
class Photo:
    """One picture as the network takes it, with the outlines of its pits."""

    name: str
    position: str
    pitted: bool
    picture: U8
    """(INPUT.height, INPUT.width, 3), BGR."""
    pits: list[NDArray[np.float32]]
    """Outlines, (points, 2) x and y in pixels of `picture`."""


def load_photos(folder: Path) -> list[Photo]:
    """Read all pictures of `folder`/{good,pitting}.

    Args:
        folder: the folder `ball-screw`.

    Returns:
        Sorted by name.

    Raises:
        FileNotFoundError: the folder or its `polygons.json` is not there.
    """
    outlines = json.loads((folder / "polygons.json").read_text())
    paths = sorted([*(folder / "good").glob("*.jpg"), *(folder / "pitting").glob("*.jpg")], key=lambda path: path.name)
    return [_photo(path, outlines.get(path.name)) for path in paths]


def as_values(photos: list[Photo]) -> U8:
    """Return pictures as the device's preprocessing gives them, (n, height, width, 3) RGB."""
    return np.stack([np.ascontiguousarray(photo.picture[..., ::-1]) for photo in photos])


def track_cells(stride: int) -> NDArray[np.bool_]:
    """Return which cells of `stride` × `stride` pixels lie mostly on the track, (rows, columns)."""
    mask = np.zeros((INPUT.height, INPUT.width), np.float32)
    cv2.fillPoly(mask, [TRACK], (1.0,))
    rows, columns = INPUT.height // stride, INPUT.width // stride
    return np.asarray(mask.reshape(rows, stride, columns, stride).mean((1, 3)) > 0.5)


def position_of(name: str) -> str:
    """Return axial and angle from a file's name, or the group of other machines."""
    found = re.search(r"_(\d{6}_\d{3})_crop_", name)
    return found.group(1) if found else OTHER_MACHINES


def time_of(name: str) -> str:
    """Return when a bench picture was taken, yymmddHHMMSS; empty for pictures of other machines."""
    found = re.search(r"_(\d{12})_\d{6}_\d{3}_crop_", name)
    return found.group(1) if found else ""


def digest_of_files(paths: list[Path]) -> str:
    """Return one SHA-256 over the names and bytes of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _photo(path: Path, outline: dict[str, object] | None) -> Photo:
    picture = np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)
    scale = np.array([INPUT.width / picture.shape[1], INPUT.height / picture.shape[0]], np.float32)
    polygons = outline["polygons"] if outline else []
    assert isinstance(polygons, list)
    pits = [np.asarray(polygon["points"], np.float32) * scale for polygon in polygons]
    small = resize(picture, INPUT.width, INPUT.height)
    return Photo(path.name, position_of(path.name), path.parent.name == "pitting", small, pits)
