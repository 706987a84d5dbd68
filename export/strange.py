"""Makes inputs strange on purpose, to see whether a network's features give them away. Pure, seeded.

Rules:
- Values are preprocessed ones, as `export.recipe.Labelled` holds them; what comes out has their shape and dtype.
- Each kind is what befalls a station: a lamp out or too bright, lost focus, a cover on the lens, a broken cable,
  another material, another thing in front of it; for sound silence, noise, another thing, a hum.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
_COUNT = 48
"""Examples of each kind: a share is known within ±14 points, and a large network is run in seconds."""


def strangers(values: Values, seed: int) -> dict[str, Values]:
    """Return inputs made strange, by kind.

    Args:
        values: (n, height, width, channels) uint8 pictures, or (n, frames, bands, 1) float32 features of sound.
        seed: for the choice of examples and for noise.
    """
    rng = np.random.default_rng(seed)
    shown = values[rng.permutation(len(values))[:_COUNT]]
    kinds = _PICTURES if values.dtype == np.uint8 else _SOUNDS
    return {name: np.ascontiguousarray(make(shown, rng)).astype(values.dtype) for name, make in kinds.items()}


def _dark(values: Values, _rng: np.random.Generator) -> Values:
    return np.asarray(values * 0.25)


def _bright(values: Values, _rng: np.random.Generator) -> Values:
    return np.minimum(values * 1.8 + 30, 255)


def _blurred(values: Values, _rng: np.random.Generator) -> Values:
    import cv2

    sigma = max(values.shape[1:3]) / 32
    return np.stack([cv2.GaussianBlur(v, (0, 0), sigma).reshape(v.shape) for v in values])


def _black(values: Values, rng: np.random.Generator) -> Values:
    return rng.integers(0, 4, values.shape)


def _noise(values: Values, rng: np.random.Generator) -> Values:
    return rng.integers(0, 256, values.shape)


def _negative(values: Values, _rng: np.random.Generator) -> Values:
    """Another material: dark where it was bright."""
    return np.asarray(255 - values.astype(np.int16))


def _textured(values: Values, rng: np.random.Generator) -> Values:
    """Another material: a woven pattern of its own colour, lit as the picture was."""
    rows, columns = np.mgrid[: values.shape[1], : values.shape[2]]
    woven = []
    for value in values:
        period = rng.uniform(4, 16)
        weave = 0.5 + 0.25 * (np.sin(rows * 2 * np.pi / period) + np.sin(columns * 2 * np.pi / period))
        colour = rng.uniform(0.3, 1.0, value.shape[-1])
        woven.append(2 * value.mean() * weave[..., None] * colour)
    return np.asarray(np.minimum(np.stack(woven), 255))


def _another_thing(values: Values, rng: np.random.Generator) -> Values:
    """A pile of pieces: the picture cut into eight by eight tiles, shuffled and turned."""
    height, width = values.shape[1] // 8, values.shape[2] // 8
    made = np.array(values)
    for value, source in zip(made, values, strict=True):
        for place, origin in enumerate(rng.permutation(64)):
            (row, column), (from_row, from_column) = divmod(place, 8), divmod(int(origin), 8)
            tile = source[from_row * height : (from_row + 1) * height, from_column * width : (from_column + 1) * width]
            value[row * height : (row + 1) * height, column * width : (column + 1) * width] = tile[::-1, ::-1]
    return made


def _silence(values: Values, rng: np.random.Generator) -> Values:
    return np.full(values.shape, float(values.min())) + rng.normal(0, 0.01, values.shape)


def _white_noise(values: Values, rng: np.random.Generator) -> Values:
    return float(values.mean()) + float(values.std()) * rng.normal(0, 1, values.shape)


def _shuffled(values: Values, rng: np.random.Generator) -> Values:
    """The frames in another order: the same sounds, no word."""
    return np.stack([value[rng.permutation(len(value))] for value in values])


def _hum(values: Values, _rng: np.random.Generator) -> Values:
    """One spectrum, held: a machine that drowns everything."""
    made = np.repeat(values.mean(axis=(0, 1), keepdims=True), values.shape[1], axis=1)
    return np.repeat(made + float(values.std()), len(values), axis=0)


def _reversed_bands(values: Values, _rng: np.random.Generator) -> Values:
    return np.asarray(values[:, :, ::-1])


_Make = Callable[[Values, np.random.Generator], Values]
_PICTURES: dict[str, _Make] = {
    "dark": _dark,
    "bright": _bright,
    "blurred": _blurred,
    "black": _black,
    "noise": _noise,
    "negative": _negative,
    "other material": _textured,
    "another thing": _another_thing,
}
_SOUNDS: dict[str, _Make] = {
    "silence": _silence,
    "noise": _white_noise,
    "no word": _shuffled,
    "hum": _hum,
    "other spectrum": _reversed_bands,
}
