"""Draws training crops: other light, colour, focus and scale, and pits moved to places that never had one.

Rules:
- Everything random comes from the generator passed in; the same seed draws the same crops.
- The mask is moved with the picture, so that every cell of the network has its truth.
- Pasted pits keep the light of the place they come to: no edge gives them away.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.ball_screw.data import INPUT, Photo, track_cells

U8 = NDArray[np.uint8]
F32 = NDArray[np.float32]

SIDE = 224
"""Side of a crop in pixels: a multiple of the network's stride, large enough for one groove and both its edges."""
_AT_PIT, _ON_PITTED, _PASTED = 0.35, 0.10, 0.25
"""Shares of crops around a real pit, elsewhere on a pitted picture, and with pits pasted in; the rest are good."""
_ON_TRACK = 0.6
"""Share of the crops without a real pit whose middle lies on the track."""
_MARGIN = 10
"""Pixels around an outlined pit that are carried along when it is pasted."""


_SMALLEST = 9.0
"""Side in pixels of a square as large as the smallest pit that is pasted: below, it could not be told from dirt."""
_OPACITY = (0.4, 1.0)
"""Pits begin faint."""


@dataclass(frozen=True)
class Pit:
    """One outlined pit, cut out with its surroundings."""

    patch: F32
    """(height, width, 3), 0…255."""
    mask: F32
    """(height, width), 0…1."""
    position: str
    """Where it was photographed."""


@dataclass(frozen=True)
class Crop:
    """What the network trains on."""

    picture: U8
    """(SIDE, SIDE, 3), BGR."""
    mask: F32
    """(SIDE, SIDE), 0…1: where the pits are."""
    positions: frozenset[str]
    """All positions that it shows something of; one of them held out, and the crop must not be used."""


class Crops:
    """An endless draw of crops from photographs."""

    def __init__(self, photos: list[Photo], rng: np.random.Generator) -> None:
        self._rng = rng
        self._good = _by_position([photo for photo in photos if not photo.pitted])
        self._pitted = _by_position([photo for photo in photos if photo.pitted])
        self._track = np.argwhere(track_cells(4))[:, ::-1] * 4
        self._pits = [_cut(photo, pit) for photo in photos for pit in photo.pits]

    def draw(self) -> Crop:
        """Return the next crop."""
        rng = self._rng
        kind = rng.random()
        if kind < _AT_PIT + _ON_PITTED:
            photo = self._pick_pitted()
            pit = photo.pits[rng.integers(len(photo.pits))].mean(0)
            centre = pit + rng.uniform(-0.4, 0.4, 2) * SIDE if kind < _AT_PIT else self._anywhere()
        else:
            photo = self._pick(self._good)
            centre = self._anywhere()
        picture, mask = photo.picture, mask_of(photo)
        positions = {photo.position}
        if 1 - kind < _PASTED:
            picture, mask, sources = self._with_pasted(picture, mask, centre)
            positions |= sources
        crop, truth = _moved(picture, mask, centre, rng)
        return Crop(other_light(crop, rng), truth, frozenset(positions))

    def _pick(self, groups: list[list[Photo]]) -> Photo:
        group = groups[self._rng.integers(len(groups))]
        return group[self._rng.integers(len(group))]

    def _pick_pitted(self) -> Photo:
        """Pits grow for days: the first small ones, which matter most, would be rarely drawn."""
        group = self._pitted[self._rng.integers(len(self._pitted))]
        weights = np.array([_area(photo) ** -0.4 for photo in group])
        return group[int(self._rng.choice(len(group), p=weights / weights.sum()))]

    def _anywhere(self) -> NDArray[np.float64]:
        if self._rng.random() < _ON_TRACK:
            return np.asarray(self._track[self._rng.integers(len(self._track))], np.float64)
        return self._rng.uniform([0, 0], [INPUT.width, INPUT.height])

    def _with_pasted(self, picture: U8, mask: F32, centre: NDArray[np.float64]) -> tuple[U8, F32, set[str]]:
        picture, mask, sources = picture.copy(), mask.copy(), set()
        for _ in range(self._rng.integers(1, 4)):
            pit = self._pits[self._rng.integers(len(self._pits))]
            place = centre + self._rng.uniform(-0.35, 0.35, 2) * SIDE
            _paste(picture, mask, _turned(pit, self._rng), place, self._rng.uniform(*_OPACITY))
            sources.add(pit.position)
        return picture, mask, sources


def other_light(crop: U8, rng: np.random.Generator) -> U8:
    """Return the crop under another light, white balance, focus and sensor noise."""
    values = crop.astype(np.float32) / 255
    values = values ** np.exp(rng.normal(0, 0.20)) * np.exp(rng.normal(0, 0.18))
    values *= np.exp(rng.normal(0, 0.05, 3)).astype(np.float32)
    gray = values.mean(2, keepdims=True)
    values = gray + (values - gray) * np.float32(rng.uniform(0.5, 1.3))
    values = (values - values.mean()) * np.float32(np.exp(rng.normal(0, 0.15))) + values.mean()
    focus = rng.random()
    if focus < 0.35:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.4, 1.2))
    elif focus < 0.6:
        values += (values - cv2.GaussianBlur(values, (0, 0), 1.5)) * np.float32(rng.uniform(0.2, 1.0))
    values += rng.normal(0, rng.uniform(0, 0.02), values.shape).astype(np.float32)
    return np.asarray(np.clip(values * 255, 0, 255), np.uint8)


def _area(photo: Photo) -> float:
    """Pixels under all outlines of a picture, 16 at least."""
    return max(sum(cv2.contourArea(pit) for pit in photo.pits), 16.0)


def _by_position(photos: list[Photo]) -> list[list[Photo]]:
    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        groups.setdefault(photo.position, []).append(photo)
    return list(groups.values())


def mask_of(photo: Photo) -> F32:
    """Return (INPUT.height, INPUT.width), 1 under the outlines."""
    mask = np.zeros(photo.picture.shape[:2], np.uint8)
    for pit in photo.pits:
        cv2.fillPoly(mask, [np.rint(pit).astype(np.int32)], 1)
    return mask.astype(np.float32)


def _cut(photo: Photo, outline: NDArray[np.float32]) -> Pit:
    height, width = photo.picture.shape[:2]
    left, top = np.maximum(outline.min(0) - _MARGIN, 0).astype(int)
    right, bottom = np.minimum(outline.max(0) + _MARGIN, [width, height]).astype(int)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline - [left, top]).astype(np.int32)], 1)
    return Pit(photo.picture[top:bottom, left:right].astype(np.float32), mask.astype(np.float32), photo.position)


def _turned(pit: Pit, rng: np.random.Generator) -> Pit:
    """The pit at another size and angle, perhaps mirrored."""
    height, width = pit.mask.shape
    scale = float(np.exp(rng.uniform(np.log(0.4), np.log(1.8))))
    scale = max(scale, _SMALLEST / max(np.sqrt(pit.mask.sum()), 1))
    scale = min(scale, 0.6 * SIDE / max(height, width))
    side = int(np.ceil(scale * np.hypot(height, width)))
    turn = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-60, 60), scale), np.float64)
    turn[:, 2] += [(side - width) / 2, (side - height) / 2]
    patch = cv2.warpAffine(pit.patch, turn, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpAffine(pit.mask, turn, (side, side), flags=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        patch, mask = patch[:, ::-1], mask[:, ::-1]
    return Pit(np.ascontiguousarray(patch), np.ascontiguousarray(mask), pit.position)


def _paste(picture: U8, mask: F32, pit: Pit, centre: NDArray[np.float64], opacity: float) -> None:
    side = len(pit.mask)
    left, top = np.rint(centre - side / 2).astype(int)
    if left < 0 or top < 0 or left + side > picture.shape[1] or top + side > picture.shape[0]:
        return
    place = picture[top : top + side, left : left + side]
    alpha = opacity * cv2.GaussianBlur(cv2.dilate(pit.mask, np.ones((5, 5), np.uint8)), (0, 0), 1.5)[:, :, None]
    ring = (pit.mask < 0.1).astype(np.float32)[:, :, None] * cv2.GaussianBlur(
        cv2.dilate(pit.mask, np.ones((9, 9), np.uint8)), (0, 0), 3
    )[:, :, None]
    weight = float(ring.sum()) + 1e-3
    light = ((place * ring).sum((0, 1)) / weight + 8) / ((pit.patch * ring).sum((0, 1)) / weight + 8)
    mixed = place * (1 - alpha) + pit.patch * np.clip(light, 0.3, 3) * alpha
    place[:] = np.clip(mixed, 0, 255).astype(np.uint8)
    np.maximum(mask[top : top + side, left : left + side], pit.mask, out=mask[top : top + side, left : left + side])


def _moved(picture: U8, mask: F32, centre: NDArray[np.float64], rng: np.random.Generator) -> tuple[U8, F32]:
    scale = np.exp(rng.uniform(np.log(0.75), np.log(1.4)))
    across, down = scale * np.exp(rng.normal(0, 0.08)), scale * np.exp(rng.normal(0, 0.08))
    angle = np.deg2rad(rng.normal(0, 6))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([across, down])
    turn = np.diag(rng.choice([-1.0, 1.0], 2, p=[0.35, 0.65])) @ turn
    move = np.column_stack([turn, SIDE / 2 - turn @ centre])
    crop = cv2.warpAffine(picture, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    truth = cv2.warpAffine(mask, move, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(crop, np.uint8), np.asarray(truth, np.float32)
