"""The network: depthwise separable convolutions, then what is typical (mean) and what stands out (maximum).

Rules:
- Input (n, 3, 120, 160) float32 as (byte − 128) / 128, output (n, labels) logits and (n, features).
- Features are the mean of an early, a middle and the last layer: colour and grain of a material show in the first two,
  which the last one has learnt to overlook.
- Only operators that both engines run in int8: convolution, addition, pooling, linear layers.
- Activations end at 6: a range that is known and short loses little in 8 bits. Those of the first layer, where faint
  marks are fainter than a step, are rounded in training too (Jacob et al. 2018, arXiv:1712.05877).
- While it trains, the network also says for each cell of a 15 × 20 grid what is there: drawn pictures know where
  their defect is, and a small mark is found far sooner when its place is shown. That layer is not exported.
"""

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (16, 24, 32, 48, 64)
_EARLY, _MIDDLE = 3, 5
"""Steps of the body after which the features of an early and a middle layer are taken."""


class PhoneGlassNet(nn.Module):
    """About 20,000 weights and 8 million multiplications a picture."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        a, b, c, d, e = _WIDTHS
        self.body = nn.Sequential(
            nn.Conv2d(3, a, 3, 2, 1, bias=False),
            nn.BatchNorm2d(a),
            Rounded(),
            Separable(a, b, 2),
            Separable(b, c, 1),
            Separable(c, d, 2),
            Separable(d, d, 1),
            Separable(d, e, 1),
            Separable(e, e, 1),
            Separable(e, e, 1),
        )
        self.cell = nn.Conv2d(e, labels, 1)
        # Two layers whose results add up say the same as one over both joined, and joining would round once more.
        self.typical = nn.Linear(e, labels)
        self.outstanding = nn.Linear(e, labels)

    def forward(self, pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits (n, labels) and features (n, 112), by which strange inputs are recognised."""
        early = self.body[:_EARLY](pictures)
        middle = self.body[_EARLY:_MIDDLE](early)
        maps = self.body[_MIDDLE:](middle)
        return {
            "logits": self._whole(maps),
            "features": torch.cat([_mean(layer) for layer in (early, middle, maps)], 1),
        }

    def with_cells(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits (n, labels) and those of each cell (n, labels, 15, 20)."""
        maps = self.body(pictures)
        cells: torch.Tensor = self.cell(maps)
        return self._whole(maps), cells

    def _whole(self, maps: torch.Tensor) -> torch.Tensor:
        rows, columns = int(maps.shape[2]), int(maps.shape[3])
        largest = functional.max_pool2d(maps, (rows, columns)).flatten(1)
        logits: torch.Tensor = self.typical(_mean(maps)) + self.outstanding(largest)
        return logits


class Rounded(nn.Module):
    """ReLU6; while it trains, in the 256 steps that eight bits leave, with the slope of what is not rounded."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same shape, 0 to 6."""
        ended = functional.relu6(maps)
        if not self.training:
            return ended
        step = 6 / 255
        return ended + (torch.round(ended / step) * step - ended).detach()


class Separable(nn.Module):
    """A depthwise 3×3 and a pointwise convolution; where nothing changes size, the input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, or of half the size for stride 2."""
        out = self.layers(maps)
        return functional.relu6(out + maps if self.adds else out)


def _mean(maps: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(maps, 1).flatten(1)
