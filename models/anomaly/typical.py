"""What good parts look like, cell by cell, and how far a cell is from it: learnt from good parts alone, no defect seen.

A Gaussian of a frozen network's features (after PaDiM: Defard, Setkov, Loesch, Audigier 2020, arXiv:2011.08785), its
whitened components added up by their sizes and not their squares: what is left is two convolutions with a ReLU between,
which every engine runs in int8.

Rules:
- Cells at the black border of letterboxing and at the picture's edge are neither learnt from nor judged, nor are
  those beside black ones: what lies beyond the edge is the network's padding.
- The picture's score is that of its worst place, a cell with the eight around it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.training.lite0 import channels_after
from models.cells import Depths, Split, Taps, mean_pointwise, pointwise

COMPONENTS = 128
"""The largest of 272: the smallest hold the sensor's noise, and judged no better (see the card)."""
_RIDGE = 1e-4
_PER_PICTURE = 60
_DARK = 6.0 / 128
"""A cell whose mean lies this much above black, (byte − 128) / 128, shows a part and not the border."""
_TAKEN = 4.0
"""Distance that a dark cell loses per unit, of which there are six: more than any cell has."""
_STEEP = 200.0
"""Units per brightness that a dark cell lacks."""


@dataclass(frozen=True)
class Typical:
    """Mean (numbers,) and whitening (components, numbers) of good cells."""

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]

    def distances(self, values: NDArray[np.float16]) -> NDArray[np.float32]:
        """Return (rows, columns): the mean size of the whitened components of each cell's values."""
        flat = values.reshape(-1, values.shape[-1]).astype(np.float32)
        size = np.abs((flat - self.mean) @ self.whitening.T).mean(1)
        return np.asarray(size.reshape(values.shape[:2]), np.float32)


def learn(values: list[NDArray[np.float16]], judged: list[NDArray[np.bool_]], seed: int) -> Typical:
    """Return what the judged cells of good pictures look like.

    Args:
        values: of each picture (rows, columns, numbers), as `models.cells.Frozen` gives them.
        judged: of each picture (rows, columns).
        seed: for the draw of cells; each picture counts for as many.
    """
    rng = np.random.default_rng(seed)
    cells = []
    for one, some in zip(values, judged, strict=True):
        inside = one[some]
        cells.append(inside[rng.integers(len(inside), size=_PER_PICTURE)].astype(np.float64))
    sample = np.concatenate(cells)
    mean = sample.mean(0)
    covariance = np.cov((sample - mean).T)
    ridge = _RIDGE * np.trace(covariance) / len(mean) * np.eye(len(mean))
    variances, axes = np.linalg.eigh(covariance + ridge)
    keep = slice(max(len(mean) - COMPONENTS, 0), None)
    return Typical(mean.astype(np.float32), (axes[:, keep] / np.sqrt(variances[keep])).T.astype(np.float32))


def judged_cells(picture: NDArray[np.uint8], stride: int) -> NDArray[np.bool_]:
    """Return which cells (rows, columns) of a picture (height, width) are judged: bright, and beside no dark one."""
    rows, columns = picture.shape[0] // stride, picture.shape[1] // stride
    mean = picture.reshape(rows, stride, columns, stride).mean((1, 3))
    lit = torch.from_numpy((mean / 128 > _DARK).astype(np.float32))[None, None]
    beside = -functional.max_pool2d(-functional.pad(lit, (1, 1, 1, 1)), 3, 1)
    return np.asarray(beside[0, 0].numpy() > 0.5)


def worst_place(distances: NDArray[np.float32], judged: NDArray[np.bool_]) -> tuple[float, NDArray[np.float32]]:
    """Return (score, heat map (rows, columns)) from the distances of the judged cells."""
    kept = torch.from_numpy(np.where(judged, distances, 0))[None, None]
    heat = functional.avg_pool2d(kept, 3, 1, 1)[0, 0].numpy()
    return float(heat.max()), heat


class TypicalNet(nn.Module):
    """The same as convolutions: what a device runs."""

    def __init__(
        self, typical: Typical, depths: Depths, stride: int, limit: float, slope: float, size: tuple[int, int]
    ) -> None:
        """Write what is typical behind the frozen part.

        Args:
            typical: of good parts.
            depths: of the frozen part that it was learnt with.
            stride: pixels per cell.
            limit: the distance at which the logits of good and defect are equal.
            slope: logits per unit of distance.
            size: rows and columns of cells.
        """
        super().__init__()
        frame = torch.full((1, 1, *size), -_TAKEN * 6)
        frame[:, :, 1:-1, 1:-1] = 0
        self.frame: Tensor
        self.register_buffer("frame", frame)
        self.taps = Taps(depths)
        count = len(typical.whitening)
        # |z| = relu(z) + relu(−z): both signs stand side by side, and the next layer adds them up.
        weights = torch.from_numpy(np.concatenate([typical.whitening, -typical.whitening]))
        offset = -weights @ torch.from_numpy(typical.mean)
        widths = [channels_after(depths[0]), *(channels_after(depth) for depth in depths)]
        largest, mean, *coarse = torch.split(weights, widths, 1)
        self.largest, self.mean = pointwise(largest, offset), mean_pointwise(mean)
        self.coarse = nn.ModuleList(pointwise(part, None) for part in coarse)
        self.total = pointwise(torch.full((1, 2 * count), 1 / count), None)
        self.dark = _fixed(nn.Conv2d(1, 1, stride, stride), -_STEEP / stride**2, _STEEP * (_DARK - 1))
        self.less = _fixed(nn.Conv2d(1, 1, 1, bias=False), -_TAKEN, None)
        self.smooth = _fixed(nn.Conv2d(1, 1, 3, 1, 1, bias=False), 1 / 9, None)
        self.split = Split(limit, slope)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return logits (n, 2) good and defect, features (n, d), and the heat map (n, rows, columns)."""
        fine, *coarse = self.taps(pictures)
        parts = self.largest(functional.max_pool2d(fine, 2)) + self.mean(fine)
        for layer, values in zip(self.coarse, coarse, strict=True):
            parts = parts + layer(values)
        dark = functional.max_pool2d(functional.relu6(self.dark(pictures)), 3, 1, 1)
        heat = self.smooth(functional.relu(self.total(functional.relu(parts)) + self.frame + self.less(dark)))
        features = torch.flatten(functional.adaptive_avg_pool2d(coarse[0], 1), 1)
        return {"logits": self.split(heat), "features": features, "heatmap": heat[:, 0]}


def _fixed(layer: nn.Conv2d, weight: float, bias: float | None) -> nn.Conv2d:
    nn.init.constant_(layer.weight, weight)
    if bias is not None and layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer
