"""The first four stages of EfficientNet-Lite0 with a head that scores every cell of the track: one pit is enough.

Rules:
- Convolutions, ReLU6, one max pooling: every step has an exact int8 form in ONNX and TFLite.
- Padding is symmetric, so that no engine needs a step of its own for it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from export.training.lite0 import BLOCKS, Block, conv

_BLOCKS = BLOCKS[:8]
"""Up to stage 4."""
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
        self.stem = conv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(Block(*shape) for shape in _BLOCKS)
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
