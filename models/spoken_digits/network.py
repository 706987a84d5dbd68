"""The network of `commands` with another head: its first layers know thousands of voices, ours are five.

Rules:
- Everything but the last layer begins with MLPerf Tiny's published weights; all of it is trained on.
- Convolutions, ReLU, average pooling, one linear layer: every step has an exact int8 form in ONNX and TFLite.
"""

import copy

import torch
from torch import nn

from models.commands.network import CHANNELS, CommandNet
from models.spoken_digits.data import LABELS


def digit_network(start: CommandNet, seed: int) -> CommandNet:
    """Return a network for the digits that begins with another's weights.

    Args:
        start: for example `models.commands.network.published`.
        seed: of the new last layer.
    """
    torch.manual_seed(seed)
    network = copy.deepcopy(start)
    network.head = nn.Linear(CHANNELS, len(LABELS))
    return network
