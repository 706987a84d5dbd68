"""A small float network that gives logits, features and a heat map, so that all three are tested without training.

Rules:
- Its heat map is bright where the picture is; its features are the pooled maps that the logits are made of.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, CHANNELS = 24, 32, 8
ROWS, COLUMNS = HEIGHT // 2, WIDTH // 2


def extras_network(
    heatmap: str = "Squeeze", names: tuple[str, ...] = ("heatmap", "logits", "features")
) -> onnx.ModelProto:
    """Return the network, with its outputs declared in this order.

    Args:
        heatmap: the operator that takes the channel axis off the map: Squeeze, Gather or Reshape.
        names: its outputs.
    """
    rng = np.random.default_rng(5)
    stem = rng.normal(0, 0.1, (CHANNELS, 3, 3, 3)).astype(np.float32)
    stem[0] = 1 / 27
    head = rng.normal(0, 0.02, (2, CHANNELS)).astype(np.float32)
    head[0, 0], head[1, 0] = -6.0, 6.0
    spots = np.zeros((1, CHANNELS, 1, 1), np.float32)
    spots[0, 0] = 1.0
    weights = {
        "w1": stem,
        "b1": np.full(CHANNELS, 1.0, np.float32),
        "w2": head,
        "b2": np.array([5.0, -5.0], np.float32),
    }
    weights |= {"w3": spots, "b3": np.array([-1.0], np.float32)}
    integers = {"axis": [1], "first": 0, "flat": [1, ROWS, COLUMNS]}
    argument = {"Squeeze": "axis", "Gather": "first", "Reshape": "flat"}[heatmap]
    given = {"axis": 1} if heatmap == "Gather" else {}
    nodes = [
        _node("Conv", ["input", "w1", "b1"], "stem", strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        _node("Relu", ["stem"], "maps"),
        _node("MaxPool", ["maps"], "top", kernel_shape=[ROWS, COLUMNS]),
        _node("Flatten", ["top"], "features"),
        _node("Gemm", ["features", "w2", "b2"], "logits", transB=1),
        _node("Conv", ["maps", "w3", "b3"], "spots", kernel_shape=[1, 1]),
        _node(heatmap, ["spots", argument], "heatmap", **given),
    ]
    shapes = {"logits": [1, 2], "features": [1, CHANNELS], "heatmap": [1, ROWS, COLUMNS]}
    constants = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    constants.append(numpy_helper.from_array(np.array(integers[argument], np.int64), argument))
    graph = helper.make_graph(
        nodes,
        "extras",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in names],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _node(kind: str, inputs: list[str], output: str, **given: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{kind.lower()}_{output}", **given)
