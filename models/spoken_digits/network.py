"""A depthwise separable network (Zhang et al. 2017, Hello Edge: DS-CNN) on log-mel features of one second.

Rules:
- Convolutions, ReLU, average pooling, one linear layer: every step has an exact int8 form in ONNX and TFLite.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DigitNet(nn.Module):
    """Logits of ten digits from features (n, 1, 61, 32)."""

    def __init__(self, labels: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 5, 2, 2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            *_separable(32, 64, (2, 1)),
            *_separable(64, 96, (2, 2)),
            *_separable(96, 96, (1, 1)),
            *_separable(96, 96, (1, 1)),
            *_separable(96, 128, (1, 1)),
        )
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(128, labels)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, labels)."""
        pooled = torch.flatten(functional.adaptive_avg_pool2d(self.body(features), 1), 1)
        logits: Tensor = self.head(self.drop(pooled))
        return logits


def _separable(into: int, out: int, stride: tuple[int, int]) -> list[nn.Module]:
    return [
        nn.Conv2d(into, into, 3, stride, 1, groups=into, bias=False),
        nn.BatchNorm2d(into),
        nn.ReLU(),
        nn.Conv2d(into, out, 1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    ]
