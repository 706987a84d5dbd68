"""Scores every cell of a picture: the frozen early EfficientNet-Lite0, and a small head that is trained.

Rules:
- The picture's score is that of its worst place, a cell with its neighbours: the heat map is the decision itself.
- The head is trained on what `Frozen` gives, made once for each picture; exported networks write it as convolutions.
- Convolutions, ReLU6, pooling and additions only: every step has an exact int8 form in ONNX and TFLite.
"""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge.runtimes.onnx import exact_session
from export.training.lite0 import Lite0

Depths = tuple[int, ...]
"""Blocks whose results the head sees: the first has half the stride of the others, which is that of the cells."""
_HIDDEN = 32
_DROPPED, _MASKS = 0.2, 24
FLOOR = 5.0
"""Cell logits below −5 are all the same: surely good. Keeps the 8-bit steps for the scores that matter."""


AROUND = 0.2
"""Share of the mean over 3 × 3 cells in a place's score: a defect is rarely one cell, but a fine crack may be."""


class Taps(nn.Module):
    """The frozen part: (n, 1, height, width), (byte − 128) / 128, to the maps behind the given blocks."""

    def __init__(self, depths: Depths) -> None:
        super().__init__()
        self.depths = depths
        self.body = Lite0(depths[-1], gray=True)

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return the maps, the first twice as fine as the others."""
        return tuple(self.body.taps(pictures, self.depths))


class Frozen:
    """The frozen part under onnxruntime, which takes a quarter of torch's time."""

    def __init__(self, depths: Depths, height: int, width: int) -> None:
        """Write it for pictures of one size and load it."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        names = [f"block{depth}" for depth in depths]
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # The tracing exporter is announced as the old one; it is quick and needs no further package.
            warnings.simplefilter("ignore")
            path = Path(folder) / "taps.onnx"
            example = (torch.zeros(1, 1, height, width),)
            torch.onnx.export(
                Taps(depths), example, path, dynamo=False, opset_version=17, input_names=["input"], output_names=names
            )
            self._session = exact_session(path.read_bytes(), options)

    def values(self, picture: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float16]:
        """Return what the head sees of a gray picture (height, width): (rows, columns, numbers).

        Largest and mean of the finest map's four places in a cell, then the other maps.

        Args:
            picture: bytes, or what the network takes for them, (byte − 128) / 128.
        """
        scaled = (picture.astype(np.float32) - 128) / 128 if picture.dtype == np.uint8 else picture
        fine, *coarse = (torch.from_numpy(found) for found in self._session.run(None, {"input": scaled[None, None]}))
        joined = torch.cat([functional.max_pool2d(fine, 2), functional.avg_pool2d(fine, 2), *coarse], 1)
        return np.ascontiguousarray(joined[0].permute(1, 2, 0).half().numpy())


class Head(nn.Module):
    """From a cell's values, and a look at its neighbours, to its logit."""

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        """Start with random weights.

        Args:
            mean: (numbers,) of the values over cells, which are taken off.
            spread: (numbers,) standard deviations, by which they are divided.
        """
        super().__init__()
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self._masks: Tensor | None = None
        self.mix = nn.Linear(len(mean), _HIDDEN)
        self.around = nn.Conv2d(_HIDDEN, _HIDDEN, 3, 1, 1, groups=_HIDDEN)
        self.own = nn.Conv2d(2 * _HIDDEN, 1, 1)
        nn.init.constant_(self.own.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, values: Tensor) -> Tensor:
        """Return logits (n, rows, columns) for values (n, rows, columns, numbers)."""
        weight, bias = self.folded()
        if self.training:
            # The same as dropping of (values − mean): what is left out takes the mean.
            values = (values - self.mean) * self._kept(values) + self.mean
        hidden = functional.relu6(functional.linear(values, weight, bias)).permute(0, 3, 1, 2)
        scores: Tensor = self.own(torch.cat([hidden, functional.relu6(self.around(hidden))], 1))
        return scores[:, 0]

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the first layer's weights and bias for values as they come."""
        weight = self.mix.weight / self.spread
        return weight, self.mix.bias - weight @ self.mean

    def _kept(self, values: Tensor) -> Tensor:
        """Return factors, 0 for a fifth of the numbers: picked from some drawn once, since drawing takes long."""
        if self._masks is None:
            self._masks = functional.dropout(torch.ones(_MASKS, *values.shape[1:]), _DROPPED)
        return self._masks[torch.randint(_MASKS, (len(values),))]


def evidence(scores: Tensor) -> Tensor:
    """Return the heat map (n, rows, columns) of logits (n, rows, columns): a cell itself, and a little around it."""
    counted = functional.relu(scores + FLOOR)[:, None]
    around = functional.avg_pool2d(counted, 3, 1, 1)
    return ((1 - AROUND) * counted + AROUND * around)[:, 0]


class Split(nn.Module):
    """From the worst cell to the logits good and defect, their difference being the cell's logit."""

    def __init__(self, floor: float, slope: float = 1.0) -> None:
        """Say what the cells count from.

        Args:
            floor: the difference of the logits is slope × (worst cell − floor).
            slope: logits per unit of the map.
        """
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 1)
        self.layer.weight = nn.Parameter(torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1) * slope, requires_grad=False)
        self.layer.bias = nn.Parameter(torch.tensor([0.5, -0.5]) * slope * floor, requires_grad=False)

    def forward(self, cells: Tensor) -> Tensor:
        """Return (n, 2) for (n, 1, rows, columns)."""
        worst = functional.max_pool2d(cells, (int(cells.shape[2]), int(cells.shape[3])))
        return torch.flatten(self.layer(worst), 1)


def pointwise(weights: Tensor, offset: Tensor | None) -> nn.Conv2d:
    """Return the 1 × 1 convolution with these weights (out, into) and offset (out,)."""
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], 1, bias=offset is not None)
    layer.weight = nn.Parameter(weights[:, :, None, None].clone())
    if offset is not None:
        layer.bias = nn.Parameter(offset.clone())
    return layer


def mean_pointwise(weights: Tensor) -> nn.Conv2d:
    """Return a linear layer (out, into) on the mean over 2 × 2 as one convolution, which rounds only once."""
    layer = nn.Conv2d(weights.shape[1], weights.shape[0], 2, 2, bias=False)
    layer.weight = nn.Parameter((weights / 4)[:, :, None, None].repeat(1, 1, 2, 2))
    return layer
