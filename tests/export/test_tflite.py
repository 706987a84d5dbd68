"""The TFLite writer, operator by operator: LiteRT must give what onnxruntime gives for the same quantized graph."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge.errors import ModelError
from export import golden
from export.quantize import quantize
from export.tflite import write_tflite
from tests.export.networks import model_of

ROWS, COLUMNS = 24, 32
Weights = dict[str, NDArray[np.float32]]


def node(kind: str, inputs: list[str], output: str, **given: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **given)


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    """Smooth pictures of very different brightness, so that every activation moves."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(6, axis=1).repeat(8, axis=2)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def body(kind: str, **given: Any) -> tuple[list[onnx.NodeProto], Weights]:
    """A convolution to 6 channels with the given attributes, before what is tested."""
    rng = np.random.default_rng(3)
    weights = {"w": rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32), "b": rng.normal(0, 0.1, 6).astype(np.float32)}
    given = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], **given}
    return [node("Conv", ["input", "w", "b"], "conv", **given), node(kind, ["conv"], "maps")], weights


def strided() -> tuple[list[onnx.NodeProto], Weights]:
    """Stride 2 with pads all round, which TFLite has no name for."""
    nodes, weights = body("Relu", strides=[2, 2])
    return [*nodes, node("GlobalAveragePool", ["maps"], "pooled"), node("Flatten", ["pooled"], "logits")], weights


def valid() -> tuple[list[onnx.NodeProto], Weights]:
    nodes, weights = body("Relu", pads=[0, 0, 0, 0], strides=[2, 1])
    return [*nodes, node("GlobalAveragePool", ["maps"], "pooled"), node("Flatten", ["pooled"], "logits")], weights


def mean_over_axes() -> tuple[list[onnx.NodeProto], Weights]:
    nodes, weights = body("Relu")
    rng = np.random.default_rng(6)
    weights |= {"w2": rng.normal(0, 0.5, (6, 6)).astype(np.float32), "b2": np.zeros(6, np.float32)}
    nodes += [
        node("ReduceMean", ["maps"], "mean", axes=[2, 3], keepdims=0),
        node("Gemm", ["mean", "w2", "b2"], "logits", transB=1),
    ]
    return nodes, weights


def average_pool() -> tuple[list[onnx.NodeProto], Weights]:
    nodes, weights = body("Relu")
    nodes += [
        node("AveragePool", ["maps"], "small", kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxPool", ["small"], "top", kernel_shape=[ROWS // 2, COLUMNS // 2]),
        node("Flatten", ["top"], "logits"),
    ]
    return nodes, weights


def joined() -> tuple[list[onnx.NodeProto], Weights]:
    """Two halves with different scales in one linear layer."""
    nodes, weights = body("Relu")
    rng = np.random.default_rng(4)
    weights |= {"w2": rng.normal(0, 0.5, (6, 12)).astype(np.float32), "b2": np.zeros(6, np.float32)}
    nodes += [
        node("GlobalAveragePool", ["maps"], "mean"),
        node("MaxPool", ["maps"], "top", kernel_shape=[ROWS, COLUMNS]),
        node("Flatten", ["mean"], "flat_mean"),
        node("Flatten", ["top"], "flat_top"),
        node("Concat", ["flat_mean", "flat_top"], "both", axis=1),
        node("Gemm", ["both", "w2", "b2"], "logits", transB=1),
    ]
    return nodes, weights


def depthwise_without_bias() -> tuple[list[onnx.NodeProto], Weights]:
    nodes, weights = body("Relu")
    rng = np.random.default_rng(5)
    weights |= {"w2": rng.normal(0, 0.4, (6, 1, 3, 3)).astype(np.float32)}
    nodes += [
        node("Conv", ["maps", "w2"], "deep", group=6, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Add", ["maps", "deep"], "sum"),
        node("Relu", ["sum"], "positive"),
        node("GlobalAveragePool", ["positive"], "mean"),
        node("Flatten", ["mean"], "logits"),
    ]
    return nodes, weights


def one_channel_off_and_on() -> tuple[list[onnx.NodeProto], Weights]:
    """The one channel of a map loses its axis and gets it back, as `maps[:, 0][:, None]` is traced."""
    nodes, weights = body("Relu")
    rng = np.random.default_rng(8)
    spread = np.array([1, 0.9, 0.8, 0.7, 0.6, 0.5], np.float32).reshape(6, 1, 1, 1)
    weights |= {"w2": rng.normal(0, 0.5, (1, 6, 1, 1)).astype(np.float32), "w3": spread}
    constants = {"first": np.array(0, np.int64), "axis": np.array([1], np.int64)}
    nodes += [
        node("Conv", ["maps", "w2"], "cells", kernel_shape=[1, 1]),
        *(node("Constant", [], name, value=numpy_helper.from_array(value)) for name, value in constants.items()),
        node("Gather", ["cells", "first"], "flat", axis=1),
        node("Unsqueeze", ["flat", "axis"], "again"),
        node("Conv", ["again", "w3"], "six", kernel_shape=[1, 1]),
        node("GlobalAveragePool", ["six"], "mean"),
        node("Flatten", ["mean"], "logits"),
    ]
    return nodes, weights


@pytest.mark.parametrize(
    ("network", "steps"),
    [
        (one_channel_off_and_on, 1),
        (strided, 1),
        (valid, 1),
        (mean_over_axes, 1),
        (average_pool, 2),
        (joined, 3),
        (depthwise_without_bias, 1),
    ],
)
def test_both_engines_give_the_same_logits(
    network: Callable[[], tuple[list[onnx.NodeProto], Weights]], steps: int
) -> None:
    nodes, weights = network()
    quantized = quantize(model_of(nodes, weights, (1, 3, ROWS, COLUMNS), (1, 6)), pictures(48, seed=1))
    content, spec = write_tflite(quantized)
    shown = pictures(150, seed=2)
    by_onnx = golden.outputs(quantized.shipped, quantized.spec, shown)
    by_tflite = golden.outputs(content, spec, shown)
    assert spec.output.scale is not None
    assert by_onnx.std(axis=0).min() > spec.output.scale, "logits must move, or equality means nothing"
    difference = np.abs(by_onnx - by_tflite) / spec.output.scale
    assert difference.max() <= steps + 0.01
    # Averages and joins round once more, each in the engine's own way, so some logits are a step apart.
    assert np.mean(difference < 0.5) > (0.95 if steps == 1 else 0.7)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: body("Relu", dilations=[2, 2], pads=[2, 2, 2, 2]), "dilated"),
        (lambda: body("Softplus"), "Softplus"),
    ],
)
def test_what_cannot_be_written_exactly_is_refused_by_name(
    change: Callable[[], tuple[list[onnx.NodeProto], Weights]], words: str
) -> None:
    nodes, weights = change()
    nodes = [*nodes, node("GlobalAveragePool", ["maps"], "mean"), node("Flatten", ["mean"], "logits")]
    quantized = quantize(model_of(nodes, weights, (1, 3, ROWS, COLUMNS), (1, 6)), pictures(16, seed=3))
    with pytest.raises(ModelError, match=words):
        write_tflite(quantized)
