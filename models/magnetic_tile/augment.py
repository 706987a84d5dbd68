"""Draws another look at a photograph: turned over, in other light and size, and good ones with a made-up defect.

Rules:
- Everything random comes from the generator passed in; the same seed draws the same pictures.
- Made-up defects are drawn, never cut from other pictures: a fold learns nothing of another fold's tiles.
- The mask goes with the picture, so that every cell of the network has its truth.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from models.magnetic_tile.data import INPUT, Photo

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Box = tuple[int, int, int, int]

_MADE_SHARE = 0.35
"""Share of good pictures that get a made-up defect."""
_LEAST_SCALE = 0.8
"""Letterboxing enlarges 1.0 to 1.8 times, so the same defect comes in sizes this far apart and more."""


def other_look(photo: Photo, rng: np.random.Generator) -> tuple[U8, U8]:
    """Return (picture, mask) of (INPUT.height, INPUT.width), changed at random."""
    picture, mask = photo.picture.astype(np.float32), photo.mask.astype(np.float32)
    if not photo.defective and rng.random() < _MADE_SHARE:
        make = _MAKERS[rng.integers(len(_MAKERS))]
        picture, mask = make(picture, photo.inside, rng)
    picture, mask = _moved(picture, mask, rng)
    return _other_light(picture, rng), (mask > 0.5).astype(np.uint8)


def _moved(picture: F32, mask: F32, rng: np.random.Generator) -> tuple[F32, F32]:
    scale = rng.uniform(_LEAST_SCALE, 1.0)
    flips = rng.choice([-1.0, 1.0], 2)
    centre = np.array([INPUT.width, INPUT.height]) / 2
    room = (1 - scale) * centre
    turn = np.diag(flips * scale)
    move = np.column_stack([turn, centre - turn @ centre + rng.uniform(-room, room)])
    size = (INPUT.width, INPUT.height)
    changed = cv2.warpAffine(picture, move, size, flags=cv2.INTER_AREA)
    return np.asarray(changed, np.float32), np.asarray(cv2.warpAffine(mask, move, size), np.float32)


def _other_light(picture: F32, rng: np.random.Generator) -> U8:
    lit = picture > 0
    values = 255 * (picture / 255) ** np.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.2))
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 0.9))
    values = values + rng.normal(0, rng.uniform(0, 2.0), values.shape) * lit
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _crack(picture: F32, inside: Box, rng: np.random.Generator) -> tuple[F32, F32]:
    """A thin dark line that bends, often from an edge."""
    left, top, right, bottom = inside
    point = _somewhere(inside, rng)
    if rng.random() < 0.6:
        point[rng.integers(2)] = rng.choice([left + 2, right - 3]) if rng.random() < 0.5 else point[0]
        point[1] = rng.choice([top + 2, bottom - 3])
    angle, steps = rng.uniform(0, 2 * np.pi), int(rng.integers(4, 14))
    points = [point]
    for _ in range(steps):
        angle += rng.normal(0, 0.25)
        points.append(points[-1] + rng.uniform(6, 14) * np.array([np.cos(angle), np.sin(angle)]))
    line = np.zeros(picture.shape, np.float32)
    cv2.polylines(line, [np.rint(points).astype(np.int32)], False, 1.0, int(rng.integers(1, 4)), cv2.LINE_AA)
    return _darkened(picture, line, inside, rng.uniform(0.3, 0.7), 0.6)


def _hole(picture: F32, inside: Box, rng: np.random.Generator) -> tuple[F32, F32]:
    """A small dark spot."""
    spot = np.zeros(picture.shape, np.float32)
    axes = (int(rng.integers(3, 9)), int(rng.integers(3, 12)))
    x, y = np.rint(_somewhere(inside, rng)).astype(int)
    cv2.ellipse(spot, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return _darkened(picture, spot, inside, rng.uniform(0.35, 0.8), 1.0)


def _chip(picture: F32, inside: Box, rng: np.random.Generator) -> tuple[F32, F32]:
    """A piece that is gone at an edge or corner."""
    left, top, right, bottom = inside
    centre = _somewhere(inside, rng)
    if rng.random() < 0.5:
        centre[0] = rng.choice([left, right - 1])
    else:
        centre[1] = rng.choice([top, bottom - 1])
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = rng.uniform(6, 26) * rng.uniform(0.5, 1.3, 9)
    outline = centre + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    piece = np.zeros(picture.shape, np.float32)
    cv2.fillPoly(piece, [np.rint(outline).astype(np.int32)], (1.0,))
    return _darkened(picture, piece, inside, rng.uniform(0.3, 0.8), 0.8)


def _worn(picture: F32, inside: Box, rng: np.random.Generator) -> tuple[F32, F32]:
    """A patch without the grinding's texture, darker or brighter than what is around it."""
    patch = np.zeros(picture.shape, np.float32)
    x, y = np.rint(_somewhere(inside, rng)).astype(int)
    axes = (int(rng.integers(20, 90)), int(rng.integers(20, 90)))
    cv2.ellipse(patch, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    patch = _within(patch, inside)
    soft = cv2.GaussianBlur(patch, (0, 0), 1.5)
    smooth = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.5, 5)) * rng.choice([rng.uniform(0.5, 0.85), 1.25])
    return picture * (1 - soft) + smooth * soft, patch


def _uneven(picture: F32, inside: Box, rng: np.random.Generator) -> tuple[F32, F32]:
    """A side of the tile that was ground otherwise: brighter, with a border across the tile."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    x, y = _somewhere(inside, rng)
    along = (columns - x) * np.sin(angle) - (rows - y) * np.cos(angle)
    across = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
    across = across + rng.uniform(-0.002, 0.002) * along**2
    side = _within(1 / (1 + np.exp(-np.clip(across / rng.uniform(0.7, 3), -30, 30))), inside)
    gain = rng.choice([rng.uniform(1.25, 1.7), rng.uniform(0.6, 0.8)])
    return picture * (1 + (gain - 1) * side), (side > 0.5).astype(np.float32)


def _darkened(picture: F32, shape: F32, inside: Box, depth: float, blur: float) -> tuple[F32, F32]:
    shape = _within(shape, inside)
    return picture * (1 - depth * cv2.GaussianBlur(shape, (0, 0), blur)), (shape > 0.3).astype(np.float32)


def _within(shape: F32, inside: Box) -> F32:
    left, top, right, bottom = inside
    kept = np.zeros(shape.shape, np.float32)
    kept[top:bottom, left:right] = shape[top:bottom, left:right]
    return kept


def _somewhere(inside: Box, rng: np.random.Generator) -> NDArray[np.float64]:
    left, top, right, bottom = inside
    return rng.uniform([left, top], [right, bottom])


_MAKERS: tuple[Callable[[F32, Box, np.random.Generator], tuple[F32, F32]], ...] = (
    _crack,
    _crack,
    _hole,
    _chip,
    _worn,
    _uneven,
    _uneven,
)
"""Cracks and uneven grinding twice: they are what the fewest tiles show and the eye misses first."""
