"""The network of magnetic_tile as it is exported: a tile as it is and its local contrast, judged together.

Rules:
- Both views go through the same frozen part, as a batch of two: its weights are there once.
- A cell's logit is the mean of all heads, those on the picture and those on its contrast.
- What makes the views stays float: a logarithm in eight bits has steps. So do the first three blocks: they hold few
  weights, and eight bits there cost twice what they cost in all the rest.
- The rest is convolutions, ReLU6, pooling and additions: every step has an exact int8 form.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.training.lite0 import channels_after
from models.cells import AROUND, FLOOR, Depths, Head, Split, Taps, mean_pointwise, pointwise

FLOAT_PARTS = ("/prepare/", "/stem/", "/blocks.0/", "/blocks.1/", "/blocks.2/")
"""What is not quantized."""
VIEWS = 2
"""The picture as it is, and its local contrast."""
_DARKEST = 8.0
"""Bytes added before the logarithm: below about this, a difference is the camera's noise."""
_BLOCK, _BLOCKS = 16, 5
"""The mean that is taken off is one over 5 × 5 blocks of 16 × 16 pixels around a place."""
_GAIN = 2.0
"""Tiles' contrasts spread by 0.1 to 0.2 in the logarithm: so they fill the range of a byte and few are cut off."""


class Views(nn.Module):
    """Makes the two views: what light does to a whole region is gone from the second one."""

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (2, 1, height, width) in −1…1: the picture as it came, and its local contrast, 0 where it is black.

        Args:
            pictures: (1, 1, height, width), (byte − 128) / 128.
        """
        shades = pictures * 128 + 128
        # Letterboxing is black: it is no part of the tile, so the mean around a place leaves it out.
        lit = shades.clamp(0, 1)
        log = torch.log(shades + _DARKEST)
        mean = _around(log * lit) / (_around(lit) + 1e-3)
        smooth = functional.interpolate(mean, scale_factor=_BLOCK, mode="bilinear", align_corners=False)
        return torch.cat([pictures, ((log - smooth) * lit * _GAIN).clamp(-1, 1)])


class TileNet(nn.Module):
    """Logits, features and heat map of a tile; several heads, which one layer holds side by side."""

    def __init__(self, heads: Sequence[Head], depths: Depths) -> None:
        """Write trained heads as convolutions behind the frozen part.

        Args:
            heads: trained on what the frozen part sees of both views.
            depths: of the frozen part that they were trained with.
        """
        super().__init__()
        self.prepare = Views()
        self.taps = Taps(depths)
        folded = zip(*(head.eval().folded() for head in heads), strict=True)
        weights, offset = (torch.cat(parts).detach() for parts in folded)
        largest, mean, *coarse = _by_map(weights, depths)
        self.largest = pointwise(largest, offset)
        self.mean = mean_pointwise(mean)
        self.coarse = nn.ModuleList(pointwise(part, None) for part in coarse)
        hidden = len(offset)
        self.around = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.around.weight = nn.Parameter(torch.cat([head.around.weight for head in heads]).detach())
        self.around.bias = nn.Parameter(torch.cat([_bias(head.around) for head in heads]).detach())
        own, near = zip(*(head.own.weight[:, :, 0, 0].detach().chunk(2, 1) for head in heads), strict=True)
        bias = torch.stack([_bias(head.own) for head in heads]).mean(0).detach()
        self.own = pointwise(torch.cat(own, 1) / len(heads), bias + FLOOR)
        self.neighbours = pointwise(torch.cat(near, 1) / len(heads), None)
        self.smooth = _smoothing()
        self.split = Split(FLOOR)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return logits (1, 2) good and defect, features (1, d), and the heat map (1, rows, columns)."""
        fine, *coarse = (_side_by_side(values) for values in self.taps(self.prepare(pictures)))
        hidden = self.largest(functional.max_pool2d(fine, 2)) + self.mean(fine)
        for layer, values in zip(self.coarse, coarse, strict=True):
            hidden = hidden + layer(values)
        hidden = functional.relu6(hidden)
        scores = self.own(hidden) + self.neighbours(functional.relu6(self.around(hidden)))
        counted = self.smooth(functional.relu(scores))
        # Of the picture as it is: another light or material shows there, and is gone from the contrast.
        typical = functional.adaptive_avg_pool2d(coarse[0], 1).flatten(1)
        return {
            "logits": self.split(counted),
            "features": typical[:, : typical.shape[1] // VIEWS],
            "heatmap": counted[:, 0],
        }


def _by_map(weights: Tensor, depths: Depths) -> list[Tensor]:
    """Return weights (out, numbers of one view and of the next) by the map that they are for, both views together."""
    widths = [channels_after(depths[0]), *(channels_after(depth) for depth in depths)]
    views = [torch.split(view, widths, 1) for view in torch.chunk(weights, VIEWS, 1)]
    return [torch.cat(parts, 1) for parts in zip(*views, strict=True)]


def _around(values: Tensor) -> Tensor:
    blocks = functional.avg_pool2d(values, _BLOCK)
    return functional.avg_pool2d(blocks, _BLOCKS, 1, _BLOCKS // 2)


def _side_by_side(values: Tensor) -> Tensor:
    """Return (1, views × channels, rows, columns) for (views, channels, rows, columns)."""
    views, channels, rows, columns = (int(size) for size in values.shape)
    return values.reshape(1, views * channels, rows, columns)


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _smoothing() -> nn.Conv2d:
    """Return the convolution that `evidence` does by pooling."""
    kernel = torch.full((1, 1, 3, 3), AROUND / 9)
    kernel[0, 0, 1, 1] += 1 - AROUND
    layer = nn.Conv2d(1, 1, 3, 1, 1, bias=False)
    layer.weight = nn.Parameter(kernel, requires_grad=False)
    return layer
