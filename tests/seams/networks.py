"""Small networks for the suites, made on the spot: one with known answers, one that hangs on bright pictures."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.preprocess import to_model
from edge.wire.manifest import ModelFile, TensorSpec

SIDE = 32
LABELS = 3
SEED = 20261
NETWORKS = ("onnx", "tflite")
"""Runtimes that run networks from files; those that recognise speech have a suite of their own."""


@dataclass(frozen=True)
class Example:
    """One network in one format, with inputs and what it must answer."""

    runtime: str
    model: bytes
    spec: ModelFile
    tensors: list[NDArray[np.generic]]
    """As the format takes them."""
    logits: NDArray[np.float32]
    """(n, labels), computed in float by numpy alone."""
    tolerance: float
    """What quantization may cost, a twentieth of the spread of the logits."""


@lru_cache
def example(runtime: str) -> Example:
    """Return the small network as a file for this runtime."""
    from export.quantize import quantize
    from export.tflite import write_tflite

    rng = np.random.default_rng(SEED)
    weights = _weights(rng)
    pictures = _pictures(rng, 64)
    quantized = quantize(_network(weights), pictures)
    if runtime == "onnx":
        model, spec = quantized.shipped, quantized.spec
    else:
        model, spec = write_tflite(quantized)
    shown = pictures[:8]
    logits = _reference(weights, shown)
    tensors = [to_model(picture[None], spec.input) for picture in shown]
    return Example(runtime, model, spec, tensors, logits, float(np.ptp(logits)) / 20)


def hanging() -> tuple[bytes, ModelFile]:
    """Return an ONNX network that answers a black picture at once and counts for years on any other."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["sum_in", "one"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [1, 2]),
        ],
        [numpy_helper.from_array(np.ones((1, 2), np.float32), "one")],
    )
    nodes = [
        helper.make_node("Cast", ["picture"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole"], ["brightest"], keepdims=0),
        helper.make_node("Mul", ["brightest", "many"], ["turns"]),
        helper.make_node("Loop", ["turns", "go", "start"], ["logits"], body=body),
    ]
    constants = {"many": np.array(2**50, np.int64), "go": np.array(True), "start": np.zeros((1, 2), np.float32)}
    graph = helper.make_graph(
        nodes,
        "hanging",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    spec = ModelFile(
        file="model.onnx",
        runtime="onnx",
        precision="float32",
        input=TensorSpec(name="picture", shape=[1, 4, 4, 3], dtype="uint8"),
        output=TensorSpec(name="logits", shape=[1, 2], dtype="float32"),
        golden_tolerance=1e-6,
    )
    return model.SerializeToString(), spec


def open_sized() -> tuple[bytes, ModelFile]:
    """Return an ONNX network that says nothing about the size of its output: one label per white pixel, at least two.

    Its manifest says two.
    """
    nodes = [
        helper.make_node("Cast", ["picture"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["whole"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "white"], ["pixels"]),
        helper.make_node("Max", ["pixels", "two"], ["count"]),
        helper.make_node("Unsqueeze", ["count", "axis"], ["counts"]),
        helper.make_node("Concat", ["one", "counts"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["logits"]),
    ]
    constants = {
        "white": np.array(765, np.int64),
        "two": np.array(2, np.int64),
        "axis": np.array([0], np.int64),
        "one": np.array([1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "open sized",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "labels"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString(), hanging()[1]


BLACK = np.zeros((1, 4, 4, 3), np.uint8)
BRIGHT = np.full((1, 4, 4, 3), 255, np.uint8)


@dataclass(frozen=True)
class _Weights:
    kernel: NDArray[np.float32]
    offset: NDArray[np.float32]
    matrix: NDArray[np.float32]
    bias: NDArray[np.float32]


def _weights(rng: np.random.Generator) -> _Weights:
    return _Weights(
        kernel=rng.normal(0, 0.4, (8, 3, 3, 3)).astype(np.float32),
        offset=rng.normal(0, 0.1, 8).astype(np.float32),
        matrix=rng.normal(0, 1.0, (LABELS, 8)).astype(np.float32),
        bias=rng.normal(0, 0.2, LABELS).astype(np.float32),
    )


def _pictures(rng: np.random.Generator, count: int) -> NDArray[np.uint8]:
    """Flat fields of random colour with some noise, so that the answers differ from picture to picture."""
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    noise = rng.integers(-40, 41, (count, SIDE, SIDE, 3))
    return np.asarray(np.clip(colours + noise, 0, 255), np.uint8)


def _network(weights: _Weights) -> onnx.ModelProto:
    """Convolution with stride 2, ReLU, mean over the picture, one dense layer; input (1, 3, side, side) float."""
    constants = {"kernel": weights.kernel, "offset": weights.offset, "matrix": weights.matrix, "bias": weights.bias}
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "offset"], ["c"], name="conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat", axis=1),
        helper.make_node("Gemm", ["f", "matrix", "bias"], ["logits"], name="dense", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, LABELS])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _reference(weights: _Weights, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same network in numpy."""
    x = (pictures.astype(np.float32) - 128) / 128
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    convolved = np.einsum("nhwcij,ocij->nhwo", patches, weights.kernel) + weights.offset
    pooled = np.maximum(convolved, 0).mean(axis=(1, 2))
    return np.asarray(pooled @ weights.matrix.T + weights.bias, np.float32)


def largest_products() -> tuple[bytes, ModelFile, NDArray[np.generic], NDArray[np.float32]]:
    """Return an int8 ONNX network of one layer, a white picture, and its exact logits: all products are the largest.

    Two of them do not fit into 16 bits, in which processors without VNNI would add them up.
    """
    from export.quantize import quantize

    side = 8
    weights = np.stack([np.full((3, side, side), sign / (3 * side**2), np.float32) for sign in (1, -1)])
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["input", "w"], ["whole"], kernel_shape=[side, side]),
            helper.make_node("Flatten", ["whole"], ["logits"]),
        ],
        "largest",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    white, black = np.full((side, side, 3), 255, np.uint8), np.zeros((side, side, 3), np.uint8)
    quantized = quantize(network, np.stack([white, black]))
    real = np.float32(127 / 128)
    return (
        quantized.shipped,
        quantized.spec,
        to_model(white[None], quantized.spec.input),
        np.array([real, -real], np.float32),
    )
