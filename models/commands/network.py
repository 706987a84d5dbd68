"""The keyword network of MLPerf Tiny (DS-CNN, Zhang et al. 2017) in torch, and its published weights.

Rules:
- Batch normalisation is folded in, as in the published file; every step has an exact int8 form in ONNX and TFLite.
- The first kernel has a row more than the published one: with it the padding is even, and nothing else changes.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from edge.errors import ModelError

CHANNELS, BLOCKS, LABELS = 64, 4, 12


class CommandNet(nn.Module):
    """Logits of twelve labels from features (n, 1, 49, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, CHANNELS, (11, 4), 2, (5, 1))
        self.depthwise = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, groups=CHANNELS) for _ in range(BLOCKS))
        self.pointwise = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(BLOCKS))
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(CHANNELS, LABELS)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (n, 12)."""
        values = functional.relu(self.first(features))
        for depthwise, pointwise in zip(self.depthwise, self.pointwise, strict=True):
            values = functional.relu(pointwise(functional.relu(depthwise(values))))
        logits: Tensor = self.head(self.drop(functional.adaptive_avg_pool2d(values, 1).flatten(1)))
        return logits


def published(path: Path) -> CommandNet:
    """Return the network with the weights of MLPerf Tiny's `kws_ref_model.tflite` (Apache-2.0), as real numbers.

    Raises:
        ModelError: the file is another network.
    """
    weights = _constants(path)
    network = CommandNet()
    first, bias = weights[0]
    with torch.no_grad():
        # A row of zeros in front: 11 rows with padding 5 and 5 are 10 rows with padding 4 and 5.
        rows = np.concatenate([np.zeros_like(first[:, :1]), first], axis=1)
        _set(network.first, rows.transpose(0, 3, 1, 2), bias)
        for index in range(BLOCKS):
            kernel, bias = weights[1 + 2 * index]
            _set(_convolution(network.depthwise[index]), kernel.transpose(3, 0, 1, 2), bias)
            kernel, bias = weights[2 + 2 * index]
            _set(_convolution(network.pointwise[index]), kernel.transpose(0, 3, 1, 2), bias)
        _set(network.head, *weights[1 + 2 * BLOCKS])
    return network.eval()


def _convolution(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer


def _set(layer: nn.Conv2d | nn.Linear, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    if tuple(layer.weight.shape) != weight.shape:
        raise ModelError(f"expected weights of shape {tuple(layer.weight.shape)}, got {weight.shape}")
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(weight)))
    layer.bias.copy_(torch.from_numpy(bias))


def _constants(path: Path) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return (weights, bias) of each layer in order, as real numbers."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    graph = model.subgraphs[0]
    found = []
    for operator in graph.operators:
        if len(operator.inputs) == 3:
            _, weight, bias = (graph.tensors[index] for index in operator.inputs)
            found.append((_real(model, weight, np.int8), _real(model, bias, np.int32)))
    if len(found) != 2 + 2 * BLOCKS:
        raise ModelError(f"{path.name}: expected {2 + 2 * BLOCKS} layers with weights, got {len(found)}")
    return found


def _real(model: object, tensor: object, dtype: type) -> NDArray[np.float32]:
    raw = model.buffers[tensor.buffer].data  # type: ignore[attr-defined]
    values = np.frombuffer(bytes(raw), dtype).reshape(tensor.shape).astype(np.float32)  # type: ignore[attr-defined]
    quantization = tensor.quantization  # type: ignore[attr-defined]
    scale = np.asarray(quantization.scale, np.float32)
    axis = quantization.quantizedDimension if len(scale) > 1 else 0
    shape = [1] * values.ndim
    shape[axis] = len(scale)
    return np.asarray(values * scale.reshape(shape), np.float32)
