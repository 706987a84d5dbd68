"""A small fully convolutional network that looks for six kinds of defects in every cell of 8 × 8 pixels.

Rules:
- A cell's evidence for a kind is a log-odds against "good"; the scan's is that of its worst place, averaged over
  3 × 3 cells so that a single cell cannot speak for a scan.
- Convolutions, ReLU, residual sums and one max pooling: every step has an exact int8 form in ONNX and TFLite.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDE = 8
"""Pixels of the input per cell, each way."""
_WIDTHS = (12, 24, 48)
_BLOCKS = 6
_HEAD = 64
_FLOOR = 6.0
"""Evidence below −6 is all the same: surely none. Keeps the 8-bit steps for what matters."""

_BY_CHANCE = 1.25
"""Evidence that the worst of some thousand places of a clean scan has by chance; taken off a scan's logits."""


class BoardNet(nn.Module):
    """Evidence of each kind in each cell, and the scan's logits: 0 for good, the worst place's evidence per kind."""

    def __init__(self, kinds: int = 6) -> None:
        super().__init__()
        fine, middle, coarse = _WIDTHS
        self.stem = nn.Sequential(_conv(1, fine, 2), _conv(fine, middle, 2), _conv(middle, coarse, 2))
        self.blocks = nn.Sequential(*(_Block(coarse) for _ in range(_BLOCKS)))
        self.mix = nn.Sequential(nn.Conv2d(coarse, _HEAD, 1, bias=False), nn.BatchNorm2d(_HEAD), nn.ReLU())
        self.evidence = nn.Conv2d(_HEAD, kinds, 1)
        nn.init.constant_(self.evidence.bias, -4.0)  # type: ignore[arg-type]
        around = torch.full((kinds, 1, 3, 3), 1 / 9)
        self.spread = _fixed(nn.Conv2d(kinds, kinds, 3, padding=1, groups=kinds), around, [0.0] * kinds)
        self.answer = _fixed(nn.Conv2d(kinds, kinds + 1, 1), _with_good(kinds), [0.0] + [-_FLOOR - _BY_CHANCE] * kinds)
        self.heat = _fixed(nn.Conv2d(kinds, 1, 1), torch.ones(1, kinds, 1, 1), [0.0])

    def cells(self, scans: Tensor) -> Tensor:
        """Return the log-odds of each kind against good in each cell, (n, kinds, height / 8, width / 8).

        Args:
            scans: (n, 1, height, width) float32, (byte − 128) / 128.
        """
        found: Tensor = self.evidence(self.mix(self.blocks(self.stem(scans))))
        return found

    def forward(self, scans: Tensor) -> dict[str, Tensor]:
        """Return logits (n, 1 + kinds) and the heat map (n, 1, height / 16, width / 16).

        Features are added to the finished network (`models.recognise`): those of the last maps would call a new board
        strange, and new boards are what it is for; the first layer's do not.
        """
        places = self.spread(functional.relu(self.cells(scans) + _FLOOR))
        worst = functional.max_pool2d(places, places.shape[2:])
        return {
            "logits": torch.flatten(self.answer(worst), 1),
            "heatmap": functional.max_pool2d(self.heat(places), 2),
        }


class _Block(nn.Module):
    """Depthwise and pointwise convolution with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=False), nn.BatchNorm2d(width))
        self.mix = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, values: Tensor) -> Tensor:
        """Return the block's output, of the same shape."""
        return functional.relu(values + self.mix(functional.relu(self.look(values))))


def _conv(into: int, out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _with_good(kinds: int) -> Tensor:
    """One row of nothing for good, then each kind's own evidence."""
    return torch.cat([torch.zeros(1, kinds), torch.eye(kinds)])[:, :, None, None]


def _fixed(layer: nn.Conv2d, weight: Tensor, bias: list[float]) -> nn.Conv2d:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)
    return layer
