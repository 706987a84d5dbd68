"""Makes up faults on good scans of boards, for learning what does not belong there without having seen a defect.

Rules:
- Everything random comes from the generator passed in; the same seed draws the same pictures.
- Nothing is known of real defects but that they are small and of the scan's two colours: a fault is a blot or a line
  that puts one of them in the place of the other, more often at an edge than not.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_MOST = 3
_AT_EDGE = 0.6
_EDGE_STEP = 120
"""Grey levels between copper and gap, at least, within 9 × 9 pixels."""
_BLOTS = 0.65
"""The rest are lines."""
_RADII = (2.5, 11.0)
"""Of a blot in pixels, smallest and largest."""
_OTHER_COLOUR = 0.7
"""Share of faults in the opposite of the grey that was there; the rest in the grey of another place."""
_BORDER = 8
_SHOWS = 60
"""Grey levels by which a pixel must have changed to belong to a fault."""


def with_faults(picture: U8, rng: np.random.Generator) -> tuple[U8, list[NDArray[np.bool_]]]:
    """Return a picture with one to three faults, and for each the pixels (height, width) that it changed.

    Args:
        picture: (height, width), gray, at least 32 pixels each way.
        rng: for what, where and how large.
    """
    changed, masks = picture, []
    for _ in range(int(rng.integers(1, _MOST + 1))):
        x, y = place = _place(changed, rng)
        shape = _blot(picture.shape, place, rng) if rng.random() < _BLOTS else _line(picture.shape, place, rng)
        if rng.random() < 0.5:
            shape = np.asarray(cv2.GaussianBlur(shape, (0, 0), 0.8), np.uint8)
        grey = 255.0 - changed[int(y), int(x)]
        if rng.random() >= _OTHER_COLOUR:
            grey = float(changed[tuple(int(rng.integers(side)) for side in picture.shape)])
        alpha = shape.astype(np.float32) / 255
        before, changed = changed, np.rint(changed * (1 - alpha) + grey * alpha).astype(np.uint8)
        masks.append(np.asarray(cv2.absdiff(changed, before) > _SHOWS))
    return changed, masks


def _place(picture: U8, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return x and y of a place, at an edge if one is found soon."""
    high = np.array(picture.shape[::-1]) - _BORDER
    if rng.random() < _AT_EDGE:
        for _ in range(20):
            x, y = (int(value) for value in rng.integers(_BORDER, high))
            around = picture[y - 4 : y + 5, x - 4 : x + 5]
            if int(around.max()) - int(around.min()) > _EDGE_STEP:
                return np.array([x, y], np.float64)
    return rng.uniform(_BORDER, high)


def _blot(size: tuple[int, ...], place: NDArray[np.float64], rng: np.random.Generator) -> U8:
    radius = float(np.exp(rng.uniform(*np.log(_RADII))))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radii = radius * rng.uniform(0.6, 1.2, 9)
    outline = place + np.column_stack([np.cos(angles), rng.uniform(0.5, 1) * np.sin(angles)]) * radii[:, None]
    shape = np.zeros(size, np.uint8)
    cv2.fillPoly(shape, [np.rint(outline * 8).astype(np.int32)], (255,), cv2.LINE_AA, 3)
    return shape


def _line(size: tuple[int, ...], place: NDArray[np.float64], rng: np.random.Generator) -> U8:
    angle = float(rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi), rng.uniform(0, np.pi)]))
    reach = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(4, 16)
    start, end = ([int(value) for value in np.rint(point)] for point in (place - reach, place + reach))
    shape = np.zeros(size, np.uint8)
    cv2.line(shape, start, end, (255,), int(rng.integers(2, 9)), cv2.LINE_AA)
    return shape
