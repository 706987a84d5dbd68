"""The network: depthwise separable convolutions, then what is typical (mean) and what stands out (maximum).

Rules:
- Input (n, 3, 120, 160) float32 as (byte − 128) / 128, output (n, labels) logits.
- Only operators that both engines run in int8: convolution, addition, pooling, linear layers.
"""

import torch
from torch import nn
from torch.nn import functional

_WIDTHS = (16, 24, 32, 48, 64, 96)


class PhoneGlassNet(nn.Module):
    """About 30,000 weights and 7 million multiplications a picture."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        a, b, c, d, e, f = _WIDTHS
        self.stem = nn.Sequential(nn.Conv2d(3, a, 3, 2, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU())
        self.body = nn.Sequential(
            Separable(a, b, 2),
            Separable(b, c, 1),
            Separable(c, d, 2),
            Separable(d, d, 1),
            Separable(d, e, 1),
            Separable(e, f, 2),
            Separable(f, f, 1),
        )
        # Two layers whose results add up say the same as one over both joined, and joining would round once more.
        self.typical = nn.Linear(f, labels)
        self.outstanding = nn.Linear(f, labels)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        maps = self.body(self.stem(pictures))
        rows, columns = int(maps.shape[2]), int(maps.shape[3])
        mean = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
        largest = functional.max_pool2d(maps, (rows, columns)).flatten(1)
        logits: torch.Tensor = self.typical(mean) + self.outstanding(largest)
        return logits


class Separable(nn.Module):
    """A depthwise 3×3 and a pointwise convolution; where nothing changes size, the input is added."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.adds = inputs == outputs and stride == 1

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return maps of the same size, or of half the size for stride 2."""
        out = self.layers(maps)
        return functional.relu(out + maps if self.adds else out)
