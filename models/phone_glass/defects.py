"""Draws each kind of defect into a picture of a phone back: values in, changed picture out.

Rules:
- Each changes the picture in place, only inside of the glass, and the worse the severity the larger and the stronger.
- Depth shows by light: the side of a dent that faces the lamp is brighter.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]
Point = tuple[float, float]

_SUBPIXEL_BITS = 4
_PALE = 150
"""Above this grey level the camera has no room left for something brighter."""


def scratch(picture: F32, place: Point, severity: float, rng: np.random.Generator, _lamp: Point) -> None:
    """One to three thin, slightly bent lines: pale with a dark side, and darker on glass that is pale itself."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    angle = rng.uniform(0, np.pi)
    for _ in range(1 + int(severity > 0.6) + int(severity > 0.85)):
        length = rng.uniform(45, 80) + 130 * severity
        bend = rng.normal(0, 0.0022)
        steps = np.linspace(-length / 2, length / 2, 24)
        turned = angle + bend * steps
        centre = np.asarray(place) + rng.normal(0, 6, 2)
        points = centre + np.stack([np.cos(turned) * steps, np.sin(turned) * steps], 1)
        _line(mask, points, 1 + int(severity > 0.7))
    strength = 26 + 75 * severity
    pale_glass = float(picture[int(place[1]), int(place[0])].mean()) > _PALE
    shadow = _without(np.roll(mask, (1, 1), (0, 1)), mask)
    _blend(picture, mask, -0.8 * strength if pale_glass else strength)
    _blend(picture, shadow, 0.3 * strength if pale_glass else -0.3 * strength)


def crack(picture: F32, place: Point, severity: float, rng: np.random.Generator, _lamp: Point) -> None:
    """Jagged lines that branch from a point of impact, dark with a bright edge."""
    mask = np.zeros(picture.shape[:2], np.uint8)
    for _ in range(2 + round(4 * severity)):
        direction = rng.uniform(0, 2 * np.pi)
        _branch(mask, np.asarray(place), direction, 30 + 110 * severity * rng.uniform(0.5, 1), rng, depth=2)
    strength = 30 + 80 * severity
    _blend(picture, mask, -strength)
    edge = np.roll(mask, (1, 1), (0, 1))
    _blend(picture, _without(edge, mask), 0.7 * strength)


def dent(picture: F32, place: Point, severity: float, rng: np.random.Generator, lamp: Point) -> None:
    """A smooth hollow, shaded by the lamp's direction."""
    radius = 9 + 17 * severity + rng.uniform(0, 5)
    stretch, angle = rng.uniform(0.7, 1.0), rng.uniform(0, np.pi)
    dx, dy = _offsets(picture, place)
    across = (np.cos(angle) * dx + np.sin(angle) * dy) / radius
    along = (-np.sin(angle) * dx + np.cos(angle) * dy) / (radius * stretch)
    bowl = np.exp(-(across**2 + along**2))
    slope = (dx * lamp[0] + dy * lamp[1]) / radius
    picture += ((18 + 70 * severity) * bowl * slope - (4 + 14 * severity) * bowl)[:, :, None]


def pit_mark(picture: F32, place: Point, severity: float, rng: np.random.Generator, lamp: Point) -> None:
    """A few small dark holes with a bright rim towards the lamp."""
    dark = np.zeros(picture.shape[:2], np.uint8)
    rim = np.zeros_like(dark)
    for _ in range(1 + round(5 * severity * rng.uniform(0.6, 1))):
        centre = np.asarray(place) + rng.normal(0, 9 + 12 * severity, 2)
        radius = rng.uniform(1.6, 2.4) + 2.2 * severity
        _dot(rim, centre + 1.3 * np.asarray(lamp), radius)
        _dot(dark, centre, radius)
    strength = 34 + 85 * severity
    _blend(picture, _without(rim, dark), 0.6 * strength)
    _blend(picture, dark, -strength)


def discoloration(picture: F32, place: Point, severity: float, rng: np.random.Generator, _lamp: Point) -> None:
    """A cloud of another tone with soft, uneven borders."""
    dx, dy = _offsets(picture, place)
    radius = 20 + 34 * severity + rng.uniform(0, 8)
    direction = np.arctan2(dy, dx)
    wobble = 1 + sum(rng.uniform(0.05, 0.16) * np.sin(k * direction + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    distance = np.sqrt(dx**2 + dy**2) / (radius * wobble)
    cloud = 1 / (1 + np.exp(np.clip(7 * (distance - 1), -30, 30)))
    yellowed = np.array([-1.0, -0.25, 0.25]) if rng.random() < 0.6 else np.array([-0.55, -0.65, -0.8])
    picture += (14 + 42 * severity) * cloud[:, :, None] * yellowed.astype(np.float32)


def small_mark(picture: F32, place: Point, length: float, rng: np.random.Generator) -> None:
    """One straight nick of `length` pixels, down to parts of a pixel; pale on dark glass, dark on pale."""
    fine = 8
    side = 2 * int(np.ceil(length / 2) + 3)
    mask = np.zeros((side * fine, side * fine), np.uint8)
    angle = rng.uniform(0, np.pi)
    half = np.array([np.cos(angle), np.sin(angle)]) * length * fine / 2
    middle = side * fine / 2
    ends = [(round(float(middle + s * half[0])), round(float(middle + s * half[1]))) for s in (-1, 1)]
    cv2.line(mask, ends[0], ends[1], 255, max(round(0.5 * fine), 1), cv2.LINE_AA)
    cover = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    left, top = int(place[0]) - side // 2, int(place[1]) - side // 2
    patch = picture[top : top + side, left : left + side]
    patch += (cover * np.float32(-75.0 if float(patch.mean()) > _PALE else 75.0))[:, :, None]


DRAW: dict[str, Callable[[F32, Point, float, np.random.Generator, Point], None]] = {
    "scratch": scratch,
    "crack": crack,
    "dent": dent,
    "pit_mark": pit_mark,
    "discoloration": discoloration,
}


def _branch(
    mask: U8, start: NDArray[np.float64], direction: float, length: float, rng: np.random.Generator, *, depth: int
) -> None:
    points, done = [start], 0.0
    while done < length:
        step = rng.uniform(7, 16)
        direction += rng.normal(0, 0.35)
        points.append(points[-1] + step * np.array([np.cos(direction), np.sin(direction)]))
        done += step
        if depth and rng.random() < 0.16:
            turn = direction + rng.choice([-1, 1]) * rng.uniform(0.4, 1.0)
            _branch(mask, points[-1], turn, 0.5 * length, rng, depth=depth - 1)
    _line(mask, np.asarray(points), 1)


def _line(mask: U8, points: NDArray[np.float64], width: int) -> None:
    fixed = np.round(points * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(mask, [fixed[:, None]], False, 255, width, cv2.LINE_AA, _SUBPIXEL_BITS)


def _dot(mask: U8, centre: NDArray[np.float64], radius: float) -> None:
    scale = 2**_SUBPIXEL_BITS
    x, y = (round(float(value) * scale) for value in centre)
    cv2.circle(mask, (x, y), round(radius * scale), 255, -1, cv2.LINE_AA, _SUBPIXEL_BITS)


def _without(mask: U8, taken: U8) -> U8:
    return np.asarray(cv2.subtract(mask, taken), np.uint8)


def _blend(picture: F32, mask: U8, levels: float) -> None:
    """Add `levels` grey levels where the mask is full."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return
    inside = np.s_[top : top + height, left : left + width]
    picture[inside] += (mask[inside].astype(np.float32) * np.float32(levels / 255))[:, :, None]


def _offsets(picture: F32, place: Point) -> tuple[F32, F32]:
    rows, columns = picture.shape[:2]
    dx = np.arange(columns, dtype=np.float32)[None] - np.float32(place[0])
    dy = np.arange(rows, dtype=np.float32)[:, None] - np.float32(place[1])
    return np.broadcast_to(dx, (rows, columns)), np.broadcast_to(dy, (rows, columns))
