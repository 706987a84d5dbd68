"""Reads a quantized ONNX graph: constants, who makes and who takes a tensor, and each tensor's scale.

Rules:
- Scales and zero points are given for signed 8-bit values (what TFLite holds): an unsigned zero point less 128.
- A graph that is not in the form that onnxruntime's QDQ quantizer writes is refused, and the node is named.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge.errors import ModelError

_PASSES_SCALE_ON = ("Relu", "Clip")
"""Operators that the quantizer leaves between an operator and the quantization of its output."""


class QdqGraph:
    """Look-ups over one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {item.name: numpy_helper.to_array(item) for item in self.graph.initializer}
        self.shapes = _shapes(model)
        self.maker = {name: node for node in self.graph.node for name in node.output}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.takers.setdefault(name, []).append(node)

    def input_quantization(self) -> tuple[float, int]:
        """Return scale and signed zero point of the graph's input."""
        node = self._taker(self.graph.input[0].name, "QuantizeLinear")
        return self._pair(node)

    def output_quantization(self) -> tuple[float, int]:
        """Return scale and signed zero point of the graph's first output, the logits."""
        return self.quantization_of(self.graph.output[0].name)

    def quantization_of(self, output: str) -> tuple[float, int]:
        """Return scale and signed zero point of an output."""
        node = self.maker[output]
        if node.op_type != "DequantizeLinear":
            raise ModelError(f"{output}: expected a quantized output, got it from {node.op_type} {node.name!r}")
        return self._pair(node)

    def result(self, node: onnx.NodeProto) -> tuple[str, float, int]:
        """Return (dequantized name, scale, signed zero point) of a node's output, past a fused activation."""
        quantizer = self._past_activation(node.output[0])
        return self._dequantized(quantizer), *self._pair(quantizer)

    def activation(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """Return the Relu or Clip that follows a node, or None (quantization then cuts off by its range)."""
        takers = self.takers.get(node.output[0], [])
        return takers[0] if len(takers) == 1 and takers[0].op_type in _PASSES_SCALE_ON else None

    def weights(self, name: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return (quantized values, scales) of a dequantized constant."""
        node = self.maker.get(name)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in self.constants:
            raise ModelError(f"{name}: expected a quantized constant", hint="weights must be constants of the network")
        return self.constants[node.input[0]], np.atleast_1d(self.constants[node.input[1]]).astype(np.float32)

    def constant_map(self, name: str) -> tuple[NDArray[np.int8], float, int]:
        """Return (signed values, scale, signed zero point) of a dequantized constant with one scale for all."""
        values, scales = self.weights(name)
        zero_point = np.atleast_1d(self.constants[self.maker[name].input[2]])
        if len(scales) != 1:
            raise ModelError(f"{name}: expected one scale for a constant map, got {len(scales)}")
        shift = 128 if values.dtype == np.uint8 else 0
        return (values.astype(np.int16) - shift).astype(np.int8), float(scales[0]), int(zero_point[0]) - shift

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a plain constant, also one made by a Constant node, or None."""
        if name in self.constants:
            return np.asarray(self.constants[name])
        node = self.maker.get(name)
        if node is not None and node.op_type == "Constant":
            return np.asarray(numpy_helper.to_array(attributes(node)["value"]))
        return None

    def _past_activation(self, name: str) -> onnx.NodeProto:
        takers = self.takers.get(name, [])
        if len(takers) == 1 and takers[0].op_type in _PASSES_SCALE_ON:
            return self._past_activation(takers[0].output[0])
        return self._taker(name, "QuantizeLinear")

    def _taker(self, name: str, op_type: str) -> onnx.NodeProto:
        takers = self.takers.get(name, [])
        if len(takers) != 1 or takers[0].op_type != op_type:
            got = ", ".join(node.op_type for node in takers) or "nothing"
            raise ModelError(f"{name}: expected {op_type} to follow, got {got}", hint="this graph is not in QDQ form")
        return takers[0]

    def _dequantized(self, quantizer: onnx.NodeProto) -> str:
        return str(quantizer.output[0])

    def quantized_name(self, name: str) -> str:
        """Return the quantized tensor behind a dequantized one."""
        node = self.maker.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            raise ModelError(f"{name}: expected a dequantized tensor", hint="this graph is not in QDQ form")
        return str(node.input[0])

    def _pair(self, node: onnx.NodeProto) -> tuple[float, int]:
        zero_point = self.constants[node.input[2]]
        signed = int(zero_point) - 128 if zero_point.dtype == np.uint8 else int(zero_point)
        return float(self.constants[node.input[1]]), signed


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    return {value.name: [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim] for value in values}
