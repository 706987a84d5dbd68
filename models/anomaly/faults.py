"""Makes up faults on good pictures, for learning what does not belong there without having seen a defect.

Rules:
- Everything random comes from the generator passed in; the same seed draws the same pictures.
- Nothing is known of real defects but that they are small: a fault is a blot, a line or a patch from elsewhere, in a
  grey that the same picture has.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_MOST = 4
_SIZES = (2.0, 14.0)
"""Half the size of a blot in pixels, smallest and largest."""
_PATCH = (8, 32)


def with_faults(picture: U8, rng: np.random.Generator) -> tuple[U8, U8]:
    """Return (picture, mask) of the same shape (height, width), mask 1 where something was changed.

    Args:
        picture: (height, width), gray.
    """
    changed = picture.copy()
    for _ in range(int(rng.integers(1, _MOST + 1))):
        kind = rng.random()
        if kind < 0.5:
            _blot(changed, rng)
        elif kind < 0.75:
            _line(changed, rng)
        else:
            _patch(changed, picture, rng)
    difference = cv2.absdiff(changed, picture)
    return changed, (difference > 40).astype(np.uint8)


def _blot(picture: U8, rng: np.random.Generator) -> None:
    low, high = _SIZES
    radius = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
    radii = radius * rng.uniform(0.5, 1.2, 8)
    outline = _place(picture, rng) + np.column_stack([np.cos(angles), np.sin(angles)]) * radii[:, None]
    shape = np.zeros(picture.shape, np.uint8)
    cv2.fillPoly(shape, [np.rint(outline * 8).astype(np.int32)], (255,), cv2.LINE_AA, 3)
    _mix(picture, shape, rng)


def _line(picture: U8, rng: np.random.Generator) -> None:
    start = _place(picture, rng)
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    end = start + rng.uniform(5, 30) * np.array([np.cos(angle), np.sin(angle)])
    shape = np.zeros(picture.shape, np.uint8)
    points = [tuple(int(value) for value in np.rint(point)) for point in (start, end)]
    cv2.line(shape, points[0], points[1], (255,), int(rng.integers(2, 8)), cv2.LINE_AA)
    _mix(picture, shape, rng)


def _patch(picture: U8, source: U8, rng: np.random.Generator) -> None:
    """Copy a piece of the picture to another place."""
    height, width = (int(side) for side in rng.integers(*_PATCH, 2))
    rows, columns = picture.shape
    top, left, to_top, to_left = (
        int(rng.integers(0, limit)) for limit in (rows - height, columns - width, rows - height, columns - width)
    )
    picture[to_top : to_top + height, to_left : to_left + width] = source[top : top + height, left : left + width]


def _mix(picture: U8, shape: U8, rng: np.random.Generator) -> None:
    """Fill the shape with the grey of another place."""
    x, y = _place(picture, rng).astype(int)
    alpha = shape.astype(np.float32) / 255
    picture[:] = np.rint(picture * (1 - alpha) + float(picture[y, x]) * alpha).astype(np.uint8)


def _place(picture: U8, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform([4, 4], [picture.shape[1] - 5, picture.shape[0] - 5])
