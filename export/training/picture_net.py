"""The first stages of EfficientNet-Lite0 with a head that looks at every place and at the whole picture.

Rules:
- Convolutions, ReLU6, pooling, linear layers: every step has an exact int8 form in ONNX and TFLite.
- Batch normalisation keeps its pretrained statistics: few pictures would bend them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.training.lite0 import BLOCKS, Block, conv, load_pretrained

_BLOCKS = BLOCKS[:8]
"""Up to stage 4."""
EARLY_BLOCKS = 5
"""Blocks that training leaves as they are: edges, spots and textures of any picture."""
EARLY_STRIDE, EARLY_CHANNELS = 8, 40
STRIDE = 16
"""Pixels of the input per cell of the heat map, each way."""
FLOOR = 4.0
"""Log-odds of a cell are kept within −FLOOR … 6 − FLOOR, so that 8 bits go to those that matter: the extreme over
hundreds of cells gathers the error of quantization otherwise."""
_WIDTH = 64


class PictureNet(nn.Module):
    """Logits of the labels from the mean and the extreme of the picture's places."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.stem = conv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(Block(*shape) for shape in _BLOCKS)
        self.fine = nn.Sequential(
            nn.Conv2d(EARLY_CHANNELS, EARLY_CHANNELS, 3, 1, 1, groups=EARLY_CHANNELS),
            nn.ReLU6(),
            nn.Conv2d(EARLY_CHANNELS, _WIDTH, 1),
            nn.ReLU6(),
        )
        self.mix = nn.Conv2d(_BLOCKS[-1][4], _WIDTH, 1)
        self.refine = nn.Conv2d(_WIDTH, _WIDTH, 1, bias=False)
        self.spot = nn.Conv2d(_WIDTH, 1, 1)
        nn.init.constant_(self.spot.bias, FLOOR - 2.0)  # type: ignore[arg-type]
        self.level = nn.Conv2d(1, 1, 1)
        self.level.weight = nn.Parameter(torch.ones(1, 1, 1, 1), requires_grad=False)
        self.level.bias = nn.Parameter(torch.tensor([-FLOOR]), requires_grad=False)
        self.mean = nn.Linear(_WIDTH, labels)
        self.most = nn.Linear(_WIDTH, labels)
        self.worst = nn.Linear(1, labels)
        self.drop = nn.Dropout(0.2)

    def early(self, pictures: Tensor) -> Tensor:
        """Return what the frozen part makes of pictures: (n, 40, height / 8, width / 8).

        Args:
            pictures: (n, 3, height, width) float32, (byte − 128) / 128, RGB.
        """
        values: Tensor = self.stem(pictures)
        for block in self.blocks[:EARLY_BLOCKS]:
            values = block(values)
        return values

    def late(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (n, labels), heat map (n, 1, rows, columns), features (n, 64) from what `early` gave.

        The heat map is the log-odds of a defect in a cell, within −4 … 2.
        """
        spots = functional.max_pool2d(self.fine(values), 2)
        for block in self.blocks[EARLY_BLOCKS:]:
            values = block(values)
        mixed = functional.relu6(self.mix(values) + self.refine(spots))
        heat: Tensor = self.level(functional.relu6(self.spot(mixed)))
        mean = torch.flatten(functional.adaptive_avg_pool2d(mixed, 1), 1)
        most = torch.flatten(functional.max_pool2d(mixed, mixed.shape[2:]), 1)
        worst = torch.flatten(functional.max_pool2d(heat, heat.shape[2:]), 1)
        logits: Tensor = self.mean(self.drop(mean)) + self.most(self.drop(most)) + self.worst(worst)
        return logits, heat, mean

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the weights that start anew."""
        parts = (self.fine, self.mix, self.refine, self.spot, self.mean, self.most, self.worst)
        return [parameter for part in parts for parameter in part.parameters()]

    def body_parameters(self) -> list[nn.Parameter]:
        """Return the pretrained weights that training changes."""
        return [*self.blocks[EARLY_BLOCKS:].parameters()]

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return logits (n, labels), features (n, 64) and the heat map (n, 1, rows, columns) for pictures."""
        logits, heat, features = self.late(self.early(pictures))
        return {"logits": logits, "features": features, "heatmap": heat}


def pretrained(labels: int, seed: int) -> PictureNet:
    """Return a network with pretrained body and a head that starts by chance.

    Raises:
        ModuleNotFoundError: the package with the weights is not installed.
    """
    torch.manual_seed(seed)
    network = PictureNet(labels)
    load_pretrained(network)
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
