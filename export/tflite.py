"""Writes a full-integer TFLite file from the quantized ONNX graph, so that one quantization serves both engines.

Rules:
- Scales, zero points and integer weights are taken over as they are; nothing is quantized a second time.
- Unsigned activations become signed by a shift of 128; channels move last.
- An operator, or a form of it, that cannot be written exactly is refused by name; nothing is approximated.
- Batch 1, one input; out come the logits, then features and heat map if the network gives them.
"""

from collections.abc import Callable
from typing import Any, overload

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.wire.manifest import ModelFile, TensorSpec
from export.qdq import QdqGraph, attributes
from export.quantize import Quantized
from export.tflite_flat import FlatModel

_MADE_ELSEWHERE = ("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "Constant")
"""Nodes that are read together with the operator before or after them."""


def write_tflite(quantized: Quantized, file: str = "model.tflite") -> tuple[bytes, ModelFile]:
    """Return the TFLite file of a quantized network, and its entry for the manifest.

    Raises:
        ModelError: the network has an operator that cannot be written; the message names it.
    """
    graph = QdqGraph(quantized.qdq)
    content = _Translation(graph).run()
    input_scale, input_zero = graph.input_quantization()
    bytes_in = quantized.spec.input.dtype == "uint8"
    spec = ModelFile(
        file=file,
        runtime="tflite",
        precision="int8",
        input=TensorSpec(
            name="input",
            shape=quantized.spec.input.shape,
            dtype="int8",
            scale=None if bytes_in else input_scale,
            zero_point=None if bytes_in else input_zero,
        ),
        output=_output(graph, "logits", quantized.spec.output),
        features=_output(graph, "features", quantized.spec.features),
        heatmap=_output(graph, "heatmap", quantized.spec.heatmap),
        golden_tolerance=quantized.spec.golden_tolerance,
    )
    return content, spec


@overload
def _output(graph: QdqGraph, kind: str, given: TensorSpec) -> TensorSpec: ...
@overload
def _output(graph: QdqGraph, kind: str, given: None) -> None: ...
def _output(graph: QdqGraph, kind: str, given: TensorSpec | None) -> TensorSpec | None:
    """Return what the manifest says about an output, from what it says about the same one in ONNX."""
    if given is None:
        return None
    scale, zero_point = graph.quantization_of(given.name)
    return TensorSpec(
        name=kind, shape=given.shape, dtype="int8", scale=scale, zero_point=zero_point, tolerance=given.tolerance
    )


class _Translation:
    """Goes over the graph once, from input to output. `_numbers` maps quantized ONNX tensors to TFLite tensors."""

    def __init__(self, graph: QdqGraph) -> None:
        self._graph = graph
        self._flat = FlatModel()
        self._numbers: dict[str, int] = {}
        outputs = zip(("logits", "features", "heatmap"), graph.graph.output, strict=False)
        self._labels = {graph.quantized_name(value.name): kind for kind, value in outputs}
        self._writers: dict[str, Callable[[onnx.NodeProto], None]] = {
            "Add": self._add,
            "AveragePool": lambda node: self._pool(node, "AVERAGE_POOL_2D"),
            "Concat": self._concat,
            "Conv": self._conv,
            "Flatten": self._reshape,
            "Gemm": self._gemm,
            "GlobalAveragePool": self._mean,
            "MaxPool": lambda node: self._pool(node, "MAX_POOL_2D"),
            "ReduceMean": self._mean,
            "Gather": self._only_channel,
            "Reshape": self._reshape,
            "Squeeze": self._reshape,
            "Unsqueeze": self._reshape,
        }

    def run(self) -> bytes:
        source = self._graph.graph.input[0].name
        first = self._graph.takers[source][0].output[0]
        shape = _channels_last(self._graph.shapes[source])
        number = self._flat.activation("input", shape, *self._graph.input_quantization())
        self._numbers[first] = number
        for node in self._graph.graph.node:
            if node.op_type in self._writers:
                self._writers[node.op_type](node)
            elif node.op_type not in _MADE_ELSEWHERE:
                _refuse(node, f"operator {node.op_type} is not known", known=sorted(self._writers))
        return self._flat.finish(number, [self._input(value.name) for value in self._graph.graph.output])

    def _conv(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        weights, scales = self._graph.weights(node.input[1])
        inputs = int(self._graph.shapes[node.input[0]][1])
        groups = int(given.get("group", 1))
        if any(step != 1 for step in given.get("dilations", [1, 1])):
            _refuse(node, "dilated convolutions are not written")
        if groups not in (1, inputs):
            _refuse(node, f"{groups} groups: expected 1, or one per input channel ({inputs})")
        source, padding = self._padded(node, weights.shape[2:])
        if groups == 1:
            kernel = self._flat.weights(node.input[1], weights.transpose(0, 2, 3, 1), scales, 0)
            options, name = schema.Conv2DOptionsT(), "CONV_2D"
        else:
            kernel = self._flat.weights(node.input[1], weights.transpose(1, 2, 3, 0), scales, 3)
            options, name = schema.DepthwiseConv2DOptionsT(), "DEPTHWISE_CONV_2D"
            options.depthMultiplier = weights.shape[0] // inputs
        bias = self._bias(node, source, scales, weights.shape[0])
        options.padding = padding
        options.strideH, options.strideW = given.get("strides", [1, 1])
        options.dilationHFactor = options.dilationWFactor = 1
        options.fusedActivationFunction = self._fused(node)
        self._flat.operator(name, 3, [source, kernel, bias], self._result(node), options)

    def _gemm(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        if given.get("transA", 0) or not given.get("transB", 0) or given.get("alpha", 1.0) != 1.0:
            _refuse(node, "expected a linear layer: transA 0, transB 1, alpha 1")
        weights, scales = self._graph.weights(node.input[1])
        source = self._input(node.input[0])
        kernel = self._flat.weights(node.input[1], weights, scales, 0)
        bias = self._bias(node, source, scales, weights.shape[0])
        options = schema.FullyConnectedOptionsT()
        options.fusedActivationFunction = self._fused(node)
        self._flat.operator("FULLY_CONNECTED", 4, [source, kernel, bias], self._result(node), options)

    def _add(self, node: onnx.NodeProto) -> None:
        options = schema.AddOptionsT()
        options.fusedActivationFunction = self._fused(node)
        inputs = [self._input_or_constant(name) for name in node.input]
        self._flat.operator("ADD", 2, inputs, self._result(node), options)

    def _concat(self, node: onnx.NodeProto) -> None:
        _, scale, zero_point = self._graph.result(node)
        inputs = [self._requantized(self._input(name), scale, zero_point) for name in node.input]
        rank = len(self._graph.shapes[node.output[0]])
        options = schema.ConcatenationOptionsT()
        axis = int(attributes(node)["axis"]) % rank
        options.axis = [0, 3, 1, 2][axis] if rank == 4 else axis
        options.fusedActivationFunction = self._fused(node)
        self._flat.operator("CONCATENATION", 2, inputs, self._result(node), options)

    def _mean(self, node: onnx.NodeProto) -> None:
        given = attributes(node)
        shape = self._graph.shapes[node.output[0]]
        if node.op_type == "ReduceMean":
            axes = given.get("axes")
            if axes is None and len(node.input) > 1:
                axes = self._graph.constant(node.input[1])
            if axes is None or sorted(int(axis) % 4 for axis in axes) != [2, 3]:
                _refuse(node, f"expected a mean over height and width, got axes {axes}")
        over = self._flat.integers(node.output[0] + "_axes", np.array([1, 2], np.int32))
        options = schema.ReducerOptionsT()
        options.keepDims = len(shape) == 4
        self._flat.operator("MEAN", 2, [self._input(node.input[0]), over], self._result(node), options)

    def _pool(self, node: onnx.NodeProto, name: str) -> None:
        given = attributes(node)
        if given.get("ceil_mode", 0) or any(step != 1 for step in given.get("dilations", [1, 1])):
            _refuse(node, "rounding up and dilation are not written")
        if any(given.get("pads", [])) and not self._same(node, given["kernel_shape"]):
            _refuse(node, f"pads {given['pads']}: expected none, or those that keep ceil(size / stride)")
        source = self._input(node.input[0])
        _, scale, zero_point = self._graph.result(node)
        if self._flat.quantization(source) != (scale, zero_point):
            _refuse(node, "expected the same scale before and after pooling")
        options = schema.Pool2DOptionsT()
        options.padding = schema.Padding.SAME if any(given.get("pads", [])) else schema.Padding.VALID
        options.strideH, options.strideW = given.get("strides", [1, 1])
        options.filterHeight, options.filterWidth = given["kernel_shape"]
        options.fusedActivationFunction = self._fused(node)
        self._flat.operator(name, 2, [source], self._result(node), options)

    def _only_channel(self, node: onnx.NodeProto) -> None:
        """`maps[:, 0]` of maps with one channel: the same numbers with an axis less."""
        before, axis = self._graph.shapes[node.input[0]], int(attributes(node).get("axis", 0))
        if len(before) != 4 or axis != 1 or before[1] != 1:
            _refuse(node, f"picking along axis {axis} of shape {before}: only the one channel of a map can be picked")
        self._reshape(node)

    def _reshape(self, node: onnx.NodeProto) -> None:
        before, after = self._graph.shapes[node.input[0]], self._graph.shapes[node.output[0]]
        if len(before) == 4 and before[2:] != [1, 1] and before[1] != 1:
            _refuse(node, f"flattening a map of {before[2]}×{before[3]} would reorder it: pool it to 1×1 first")
        if len(after) == 4 and after[2:] != [1, 1] and after[1] != 1:
            _refuse(node, f"a map of shape {after} would be reordered: expected one channel, or 1×1")
        wanted = np.array(_channels_last(after), np.int32)
        shape = self._flat.integers(node.output[0] + "_shape", wanted)
        options = schema.ReshapeOptionsT()
        options.newShape = wanted
        self._flat.operator("RESHAPE", 1, [self._input(node.input[0]), shape], self._result(node), options)

    def _input(self, name: str) -> int:
        return self._numbers[self._graph.quantized_name(name)]

    def _input_or_constant(self, name: str) -> int:
        """Return the tensor's number; a constant map (a mask, a bias per place) is written on first use."""
        quantized = self._graph.quantized_name(name)
        if quantized not in self._numbers and quantized in self._graph.constants:
            values, scale, zero_point = self._graph.constant_map(name)
            axes = (0, 2, 3, 1) if values.ndim == 4 else tuple(range(values.ndim))
            self._numbers[quantized] = self._flat.constant(quantized, values.transpose(axes), scale, zero_point)
        return self._input(name)

    def _result(self, node: onnx.NodeProto) -> int:
        name, scale, zero_point = self._graph.result(node)
        shape = _channels_last(self._graph.shapes[node.output[0]])
        label = self._labels.get(name, name)
        self._numbers[name] = self._flat.activation(label, shape, scale, zero_point)
        return self._numbers[name]

    def _requantized(self, number: int, scale: float, zero_point: int) -> int:
        """Joined tensors must share a scale in TFLite; those that do not are converted first."""
        if self._flat.quantization(number) == (float(np.float32(scale)), zero_point):
            return number
        changed = self._flat.activation(f"requantized_{number}", self._flat.shape(number), scale, zero_point)
        self._flat.operator("QUANTIZE", 2, [number], changed, schema.QuantizeOptionsT())
        return changed

    def _bias(self, node: onnx.NodeProto, source: int, scales: NDArray[np.float32], count: int) -> int:
        scale, _ = self._flat.quantization(source)
        both = (np.float32(scale) * scales).astype(np.float32)
        if len(node.input) < 3 or not node.input[2]:
            return self._flat.bias(node.output[0] + "_no_bias", np.zeros(count, np.int32), both)
        values, given = self._graph.weights(node.input[2])
        if not np.allclose(given, both, rtol=1e-5):
            _refuse(node, "expected the bias to have the scale of input times weights")
        return self._flat.bias(node.input[2], values.astype(np.int32), both)

    def _padded(self, node: onnx.NodeProto, kernel: tuple[int, ...]) -> tuple[int, int]:
        """Return (tensor, padding kind); pads that TFLite cannot name are put around the input explicitly."""
        source = self._input(node.input[0])
        pads = [int(pad) for pad in attributes(node).get("pads", [0] * 4)]
        if not any(pads):
            return source, int(schema.Padding.VALID)
        if self._same(node, kernel):
            return source, int(schema.Padding.SAME)
        top, left, bottom, right = pads
        batch, rows, columns, channels = self._flat.shape(source)
        around = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
        shape = [batch, rows + top + bottom, columns + left + right, channels]
        padded = self._flat.activation(node.output[0] + "_padded", shape, *self._flat.quantization(source))
        argument = self._flat.integers(node.output[0] + "_pads", around)
        self._flat.operator("PAD", 2, [source, argument], padded, schema.PadOptionsT())
        return padded, int(schema.Padding.VALID)

    def _same(self, node: onnx.NodeProto, kernel: tuple[int, ...] | list[int]) -> bool:
        """Whether the node's pads are those of TFLite's SAME: ceil(size / stride), the odd one at the end."""
        given = attributes(node)
        pads, strides = given["pads"], given.get("strides", [1, 1])
        for axis, size in enumerate(self._graph.shapes[node.input[0]][2:]):
            wanted = max((-(-size // strides[axis]) - 1) * strides[axis] + kernel[axis] - size, 0)
            if pads[axis] != wanted // 2 or pads[axis] + pads[axis + 2] != wanted:
                return False
        return True

    def _fused(self, node: onnx.NodeProto) -> int:
        """Return the activation to fuse; most often none, since the range of the result already cuts off at zero."""
        follower = self._graph.activation(node)
        if follower is None:
            return int(schema.ActivationFunctionType.NONE)
        if follower.op_type == "Relu":
            return int(schema.ActivationFunctionType.RELU)
        bounds = [self._graph.constant(name) for name in follower.input[1:3]]
        if [None if bound is None else float(bound) for bound in bounds] != [0.0, 6.0]:
            _refuse(follower, f"expected Clip between 0 and 6, got {bounds}")
        return int(schema.ActivationFunctionType.RELU6)


def _channels_last(shape: list[int]) -> list[int]:
    return [shape[0], shape[2], shape[3], shape[1]] if len(shape) == 4 else shape


def _refuse(node: onnx.NodeProto, why: str, known: Any = None) -> None:
    hint = f"it can write {', '.join(known)}" if known else "change the network, or ship it as onnx only"
    raise ModelError(f"tflite: {node.op_type} {node.name!r}: {why}", hint=hint)
