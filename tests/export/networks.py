"""Small float networks in ONNX, made by hand, so that export is tested without torch.

Rules:
- Channels first, batch 1, input `input`, output `logits`, as `export.onnx_export` writes them.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def spot_network(height: int = 24, width: int = 32) -> onnx.ModelProto:
    """A network that says `bad` when there is a bright spot: it compares the brightest place with the average."""
    rng = np.random.default_rng(5)
    stem = rng.normal(0, 0.02, (8, 3, 3, 3)).astype(np.float32)
    stem[0] = 1 / 27
    depthwise = np.zeros((8, 1, 3, 3), np.float32)
    depthwise[:, 0, 1, 1] = 1.0
    head = np.zeros((2, 8), np.float32)
    head[0, 0], head[1, 0] = -6.0, 6.0
    low = np.array([5.0, -5.0], np.float32)
    weights = {"w1": stem, "b1": np.full(8, 1.0, np.float32), "w2": depthwise, "b2": np.zeros(8, np.float32)}
    weights |= {"w3": head, "b3": low, "zero": np.array(0.0, np.float32), "six": np.array(6.0, np.float32)}
    nodes = [
        _node("Conv", ["input", "w1", "b1"], "stem", strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        _node("Clip", ["stem", "zero", "six"], "stem6"),
        _node("Conv", ["stem6", "w2", "b2"], "deep", group=8, pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        _node("Relu", ["deep"], "deep_relu"),
        _node("Add", ["stem6", "deep_relu"], "sum"),
        _node("MaxPool", ["sum"], "top", kernel_shape=[height // 2, width // 2]),
        _node("Flatten", ["top"], "flat"),
        _node("Gemm", ["flat", "w3", "b3"], "logits", transB=1),
    ]
    return model_of(nodes, weights, (1, 3, height, width), (1, 2))


def sound_network(frames: int, bands: int) -> onnx.ModelProto:
    """A network over features of one channel: convolution, mean over all, one linear layer of three labels."""
    rng = np.random.default_rng(6)
    weights = {
        "w1": rng.normal(0, 0.3, (6, 1, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 6).astype(np.float32),
        "w2": rng.normal(0, 1.0, (3, 6)).astype(np.float32),
        "b2": rng.normal(0, 0.1, 3).astype(np.float32),
    }
    nodes = [
        _node("Conv", ["input", "w1", "b1"], "c", pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        _node("Relu", ["c"], "r"),
        _node("GlobalAveragePool", ["r"], "m"),
        _node("Flatten", ["m"], "f"),
        _node("Gemm", ["f", "w2", "b2"], "logits", transB=1),
    ]
    return model_of(nodes, weights, (1, 1, frames, bands), (1, 3))


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, NDArray[np.float32]],
    given: tuple[int, ...],
    result: tuple[int, ...],
) -> onnx.ModelProto:
    """Return a checked model of these nodes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, result)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def spot_pictures(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Return (pictures (n, 24, 32, 3), labels): grey noise, every second one with a bright spot of varying strength."""
    rng = np.random.default_rng(seed)
    values = rng.integers(60, 100, (count, 24, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, count).astype(np.intp)
    for index in np.flatnonzero(labels):
        row, column = rng.integers(2, 18), rng.integers(2, 26)
        values[index, row : row + 5, column : column + 5] = rng.integers(110, 250)
    return values, labels


def _node(kind: str, inputs: list[str], output: str, **given: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{kind.lower()}_{output}", **given)
