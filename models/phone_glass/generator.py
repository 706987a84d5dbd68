"""Photographs phone backs that do not exist: finish, defect, lamp, pose and camera. Needs numpy and OpenCV only.

Rules:
- The same (part, light, shot) gives the same bytes on one machine; nothing is drawn from a shared generator.
- Truth is what was drawn: `part.label` and `part.severity`.
- Good parts are not clean parts: dust, smears and reflections come on all of them.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.phone_glass.convention import MM_PER_PIXEL
from models.phone_glass.defects import DRAW, F32, U8, small_mark
from models.phone_glass.parts import Light, Part

WIDTH, HEIGHT = 640, 480
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 106, 578, 374
_CORNER = 40
_BEZEL = 5
_NOISE_SIDE = 1024
"""The camera's noise is cut from one large tile at a random place: making it anew would take half the time."""
_READ_NOISE = 1.1
_SHOT_NOISE = 0.13
"""Grey levels at black, and per square root of a grey level: a small sensor at its normal gain."""


class Studio:
    """A camera over a belt; holds what is the same in every picture."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20261123)
        self._noise = rng.standard_normal((_NOISE_SIDE, _NOISE_SIDE), dtype=np.float32)
        grain = rng.standard_normal((_NOISE_SIDE // 2, _NOISE_SIDE // 2), dtype=np.float32)
        large = cv2.resize(grain, (_NOISE_SIDE, _NOISE_SIDE))
        self._mat = np.asarray(cv2.GaussianBlur(large, (0, 0), 1.5), np.float32) * np.float32(5)
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        self._x, self._y = x / WIDTH - 0.5, y / HEIGHT - 0.5
        self._vignette = 1 - 0.38 * (self._x**2 + self._y**2)
        self._glass = _rounded(_LEFT, _TOP, _RIGHT, _BOTTOM, _CORNER)
        inner = _rounded(_LEFT + _BEZEL, _TOP + _BEZEL, _RIGHT - _BEZEL, _BOTTOM - _BEZEL, _CORNER - _BEZEL)
        self._bezel = _three(255 - inner) > 0
        self._island = _rounded(_LEFT + 18, _TOP + 18, _LEFT + 126, _TOP + 126, 28)

    def photograph(self, part: Part, light: Light, shot: int = 0) -> U8:
        """Return a picture (480, 640, 3) uint8, BGR, of a part under a light.

        Args:
            part: what is photographed.
            light: the lamp.
            shot: number of the picture of this part: another pose, another noise.
        """
        return self.photograph_with_truth(part, light, shot)[0]

    def photograph_with_truth(self, part: Part, light: Light, shot: int = 0) -> tuple[U8, U8]:
        """Return the picture, and a mask (480, 640) uint8 of where it shows the defect, 255 at its strongest."""
        shape, chance = np.random.default_rng([part.seed, 1]), np.random.default_rng([part.seed, 2, shot])
        angle = chance.uniform(0, 2 * np.pi)
        lamp = (float(np.cos(angle)), float(np.sin(angle)))
        scene = self._belt(chance)
        back, defect = self._back(part, shape, lamp)
        truth = self._lay(scene, back, defect, chance)
        self._illuminate(scene, light, part.finish.gloss, lamp, chance)
        return self._expose(scene, light, chance), truth

    def _belt(self, chance: np.random.Generator) -> F32:
        tone = np.array([96, 98, 100], np.float32) + np.float32(chance.normal(0, 3))
        return np.asarray(_three(self._crop(self._mat, chance)) + tone, np.float32)

    def _back(self, part: Part, shape: np.random.Generator, lamp: tuple[float, float]) -> tuple[F32, U8]:
        """Return the phone's back with its defect, and the mask of the defect."""
        tone = np.asarray(part.finish.color, np.float32) + shape.normal(0, 4, 3).astype(np.float32)
        picture = _three(self._crop(self._noise, shape) * np.float32(part.finish.grain)) + tone
        np.copyto(picture, 0.55 * tone + 70, where=self._bezel)
        _camera_and_logo(picture, tone, self._island)
        self._dust_and_smears(picture, shape)
        if part.label == "good":
            return picture, np.zeros((HEIGHT, WIDTH), np.uint8)
        before = picture.copy()
        if part.mark_mm is None:
            DRAW[part.label](picture, _place(shape), part.severity, shape, lamp)
        else:
            small_mark(picture, _place(shape), part.mark_mm / MM_PER_PIXEL, shape)
        change = np.asarray(cv2.transform(cv2.absdiff(picture, before), np.full((1, 3), 1 / 3)), np.float32)
        return picture, np.asarray(np.minimum(change * (255 / max(float(change.max()), 1.0)), 255), np.uint8)

    def _dust_and_smears(self, picture: F32, shape: np.random.Generator) -> None:
        for _ in range(int(shape.integers(0, 7))):
            x, y = shape.uniform(_LEFT + 12, _RIGHT - 12), shape.uniform(_TOP + 12, _BOTTOM - 12)
            size = shape.uniform(0.6, 1.5)
            level = shape.uniform(8, 30)
            column, row = int(x), int(y)
            patch = picture[row - 3 : row + 4, column - 3 : column + 4]
            spread = np.arange(-3, 4, dtype=np.float32)
            speck = np.float32(level) * np.exp(-(spread[:, None] ** 2 + spread**2) / np.float32(size**2))
            patch += speck[:, :, None]
        if shape.random() < 0.5:
            centre = shape.uniform(-0.3, 0.3, 2)
            bump = np.exp(-(((self._x - centre[0]) / 0.14) ** 2) - ((self._y - centre[1]) / 0.12) ** 2)
            picture += _three(np.asarray(shape.uniform(-7, 7) * bump, np.float32))

    def _lay(self, scene: F32, back: F32, defect: U8, chance: np.random.Generator) -> U8:
        """Put the back onto the belt, a little turned and shifted, with its shadow; return where the defect is now."""
        turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), chance.normal(0, 1.5), 1 + chance.normal(0, 0.012))
        turn = np.asarray(turn, np.float64)
        turn[:, 2] += np.asarray(chance.normal(0, 5, 2))
        moved = cv2.warpAffine(back, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(self._glass, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        quarter = cv2.resize(mask, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_AREA)
        shadow = cv2.resize(cv2.GaussianBlur(np.roll(quarter, (2, 2), (0, 1)), (0, 0), 2.5), (WIDTH, HEIGHT))
        scene *= _three(1 - np.asarray(shadow, np.float32) * np.float32(0.35 / 255))
        cover = _three(np.asarray(mask, np.float32) * np.float32(1 / 255))
        scene += (np.asarray(moved, np.float32) - scene) * cover
        shown = cv2.bitwise_and(cv2.warpAffine(defect, turn, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR), mask)
        return np.asarray(shown, np.uint8)

    def _illuminate(
        self, scene: F32, light: Light, gloss: float, lamp: tuple[float, float], chance: np.random.Generator
    ) -> None:
        along = self._x * np.float32(lamp[0]) + self._y * np.float32(lamp[1])
        field = self._vignette * (1 + np.float32(light.uneven * chance.uniform(0.6, 1.2)) * along)
        across = self._x * np.float32(-lamp[1]) + self._y * np.float32(lamp[0]) - np.float32(chance.uniform(-0.3, 0.3))
        stripe = np.exp(-((across / np.float32(chance.uniform(0.08, 0.16))) ** 2))
        mirrored = np.float32(34 * light.glare * gloss * chance.uniform(0.5, 1)) * stripe
        gain = light.gain * chance.uniform(0.93, 1.07)
        scene += _three(mirrored)
        tint = [float(value) * gain for value in light.tint]
        scene *= cv2.merge([np.asarray(field * np.float32(value), np.float32) for value in tint])

    def _expose(self, scene: F32, light: Light, chance: np.random.Generator) -> U8:
        soft = np.asarray(cv2.GaussianBlur(scene, (3, 3), 0.55 + 0.15 * chance.random()), np.float32)
        np.clip(soft, 0, 255, out=soft)
        level = np.sqrt(np.asarray(cv2.cvtColor(soft, cv2.COLOR_BGR2GRAY), np.float32))
        spread = np.float32(light.noise) * (np.float32(_READ_NOISE) + np.float32(_SHOT_NOISE) * level)
        soft += cv2.merge([self._crop(self._noise, chance) * spread for _ in range(3)])
        np.rint(soft, out=soft)
        return np.clip(soft, 0, 255, out=soft).astype(np.uint8)

    @staticmethod
    def _crop(tile: F32, chance: np.random.Generator) -> F32:
        row, column = chance.integers(0, _NOISE_SIDE - HEIGHT), chance.integers(0, _NOISE_SIDE - WIDTH)
        return tile[row : row + HEIGHT, column : column + WIDTH]


def _place(shape: np.random.Generator) -> tuple[float, float]:
    """Return a point on the glass, clear of the cameras."""
    while True:
        x, y = shape.uniform(_LEFT + 45, _RIGHT - 45), shape.uniform(_TOP + 40, _BOTTOM - 40)
        if not (x < _LEFT + 150 and y < _TOP + 150):
            return float(x), float(y)


def _three(values: NDArray[Any]) -> NDArray[Any]:
    """Return one plane as three equal channels; numpy's own broadcasting over the last axis is several times slower."""
    return np.asarray(cv2.merge([values, values, values]))


def _camera_and_logo(picture: F32, tone: NDArray[np.float32], island: U8) -> None:
    picture[island > 0] = 0.85 * tone + 14
    for x, y in ((48, 48), (48, 96), (96, 48)):
        centre = (_LEFT + x, _TOP + y)
        cv2.circle(picture, centre, 20, (70, 70, 70), -1, cv2.LINE_AA)
        cv2.circle(picture, centre, 17, (22, 20, 20), -1, cv2.LINE_AA)
        cv2.circle(picture, centre, 8, (44, 34, 30), -1, cv2.LINE_AA)
        cv2.circle(picture, (centre[0] - 4, centre[1] - 4), 2, (130, 120, 120), -1, cv2.LINE_AA)
    cv2.circle(picture, (_LEFT + 98, _TOP + 98), 8, (205, 222, 228), -1, cv2.LINE_AA)
    mark = tuple(float(value) for value in 0.82 * tone + 34)
    cv2.ellipse(picture, (WIDTH // 2 + 8, HEIGHT // 2), (20, 26), 0, 0, 360, mark, -1, cv2.LINE_AA)


def _rounded(left: int, top: int, right: int, bottom: int, radius: int) -> U8:
    """Return a mask (480, 640) of a rectangle with round corners."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.rectangle(mask, (left + radius, top), (right - radius, bottom), 255, -1)
    cv2.rectangle(mask, (left, top + radius), (right, bottom - radius), 255, -1)
    for x in (left + radius, right - radius):
        for y in (top + radius, bottom - radius):
            cv2.circle(mask, (x, y), radius, 255, -1, cv2.LINE_AA)
    return mask
