"""Judges every tile by a network that never saw it: five-fold over ranges of numbers, in the int8 form that is shipped.

Rules:
- A fold's network sees no picture of the fold's tiles, in no light; its ranges are set by pictures it was trained on.
- The leaky figure (pictures split at random) is measured alike, by one float split, to be shown beside it and never
  used.
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray

from export import golden, onnx_export
from export.quantize import quantize
from export.recipe import Ranges
from export.roc import auroc
from models.cells import Head, evidence
from models.magnetic_tile.data import FOLDS, INPUT, Photo
from models.magnetic_tile.fit import DEPTHS, DIETS, Pool, fit, fit_heads, usable
from models.magnetic_tile.measure import Scored
from models.magnetic_tile.network import FLOAT_PARTS, TileNet

SEED = 1
RANGES: Ranges = "minmax"
"""Of the folds and of the shipped network alike: what is measured here is what is shipped."""
_RANGE_PICTURES = 48
_LEAKY_SHARE = 0.2


def cross_validated(photos: list[Photo], pool: Pool) -> tuple[NDArray[np.float32], Scored]:
    """Return logits (n, 2) of int8 networks that never saw the part, and the same as scores with heat maps."""
    folds = np.array([photo.fold for photo in photos])
    logits = np.zeros((len(photos), 2), np.float32)
    heat: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(photos)
    for fold in range(FOLDS):
        print(f"training without fold {fold}", file=sys.stderr)
        network = TileNet(fit_heads(pool, photos, folds != fold, SEED), DEPTHS)
        seen = [photo for photo in photos if photo.fold != fold]
        whole = onnx_export.float_onnx(network, (1, INPUT.height, INPUT.width))
        quantized = quantize(whole, range_pictures(seen), ranges=RANGES, keep_float=FLOAT_PARTS)
        for place in np.flatnonzero(folds == fold):
            values = as_values([photos[int(place)]])
            answer = golden.split(golden.answers(quantized.shipped, quantized.spec, values), quantized.spec)
            assert answer.heatmap is not None
            logits[place], heat[place] = answer.logits[0], answer.heatmap[0]
    score = logits[:, 1].astype(np.float64) - logits[:, 0]
    return logits, Scored(photos, score, np.stack(heat))


def leaky_auroc(photos: list[Photo], pool: Pool) -> float:
    """Return the AUROC by picture on a fifth of the pictures drawn at random: other lights of tiles it was fed."""
    held = np.random.default_rng(SEED).random(len(photos)) < _LEAKY_SHARE
    head = fit(pool, photos, usable(pool, ~held, looks=False), DIETS[0][1], SEED)
    score = np.array([_worst(head, pool.values[place]) for place in np.flatnonzero(held)])
    return auroc(np.array([photo.defective for photo in photos])[held], score)


def range_pictures(photos: list[Photo]) -> NDArray[np.uint8]:
    """Return pictures from all over the list, by which activations' ranges are set."""
    chosen = np.linspace(0, len(photos) - 1, min(_RANGE_PICTURES, len(photos)))
    return as_values([photos[int(place)] for place in chosen])


def as_values(photos: list[Photo]) -> NDArray[np.uint8]:
    """Return pictures as the device's preprocessing gives them, (n, height, width, 1)."""
    return np.stack([photo.picture for photo in photos])[..., None]


def _worst(head: Head, values: NDArray[np.float16]) -> float:
    with torch.no_grad():
        cells = torch.from_numpy(values).float()[None]
        return float(evidence(head(cells)).max())
