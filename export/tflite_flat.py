"""Puts tensors and operators together into a TFLite file, with the schema that comes with LiteRT.

Rules:
- One subgraph, named `main`; buffer 0 is empty, as the format asks.
- Quantized tensors are signed 8-bit; a list of scales means one per slice along `axis`.

Format: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
"""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_BIGGEST_OLD_CODE = 127
"""Operator codes above this do not fit the old one-byte field."""


class FlatModel:
    """Collects tensors and operators; `finish` writes the file."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]
        self._operators: list[Any] = []
        self._codes: list[tuple[int, int]] = []

    def activation(self, name: str, shape: Sequence[int], scale: float, zero_point: int) -> int:
        """Add a tensor that is computed; return its number."""
        return self._tensor(name, shape, schema.TensorType.INT8, 0, [scale], [zero_point], 0)

    def weights(self, name: str, values: NDArray[np.int8], scales: NDArray[np.float32], axis: int) -> int:
        """Add constant 8-bit weights with a scale per slice along `axis` (or one for all); return their number."""
        kind = schema.TensorType.INT8
        return self._tensor(name, values.shape, kind, self._buffer(values), scales, [0] * len(scales), axis)

    def constant(self, name: str, values: NDArray[np.int8], scale: float, zero_point: int) -> int:
        """Add a constant that is used like an activation; return its number."""
        return self._tensor(name, values.shape, schema.TensorType.INT8, self._buffer(values), [scale], [zero_point], 0)

    def bias(self, name: str, values: NDArray[np.int32], scales: NDArray[np.float32]) -> int:
        """Add a constant 32-bit bias; return its number."""
        kind = schema.TensorType.INT32
        return self._tensor(name, values.shape, kind, self._buffer(values), scales, [0] * len(scales), 0)

    def integers(self, name: str, values: NDArray[np.int32]) -> int:
        """Add a constant argument such as axes or a shape; return its number."""
        return self._tensor(name, values.shape, schema.TensorType.INT32, self._buffer(values), None, None, 0)

    def shape(self, number: int) -> list[int]:
        """Return the shape of a tensor."""
        return [int(size) for size in self._tensors[number].shape]

    def quantization(self, number: int) -> tuple[float, int]:
        """Return scale and zero point of an activation."""
        found = self._tensors[number].quantization
        return float(found.scale[0]), int(found.zeroPoint[0])

    def operator(self, name: str, version: int, inputs: Sequence[int], output: int, options: Any = None) -> None:
        """Add an operator.

        Args:
            name: as in the schema's `BuiltinOperator`, for example `CONV_2D`.
            version: of the operator, as the format counts them.
            inputs: tensor numbers.
            output: tensor number.
            options: the schema's options object of this operator, or None.
        """
        code = (int(getattr(schema.BuiltinOperator, name)), version)
        if code not in self._codes:
            self._codes.append(code)
        added = schema.OperatorT()
        added.opcodeIndex = self._codes.index(code)
        added.inputs, added.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options is not None:
            added.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            added.builtinOptions = options
        self._operators.append(added)

    def finish(self, source: int, results: Sequence[int]) -> bytes:
        """Return the file's bytes, with this input and these outputs."""
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs, graph.outputs = np.array([source], np.int32), np.array(results, np.int32)
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "lineside-export"
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_operator_code(*code) for code in self._codes]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _buffer(self, values: NDArray[Any]) -> int:
        added = schema.BufferT()
        added.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._buffers.append(added)
        return len(self._buffers) - 1

    def _tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int,
        buffer: int,
        scales: Sequence[float] | NDArray[np.float32] | None,
        zero_points: Sequence[int] | None,
        axis: int,
    ) -> int:
        added = schema.TensorT()
        added.name, added.shape, added.type, added.buffer = name, np.array(shape, np.int32), kind, buffer
        if scales is not None:
            added.quantization = schema.QuantizationParametersT()
            added.quantization.scale = np.asarray(scales, np.float32)
            added.quantization.zeroPoint = np.asarray(zero_points, np.int64)
            added.quantization.quantizedDimension = axis
        self._tensors.append(added)
        return len(self._tensors) - 1


def _operator_code(code: int, version: int) -> Any:
    added = schema.OperatorCodeT()
    added.builtinCode, added.deprecatedBuiltinCode, added.version = code, min(code, _BIGGEST_OLD_CODE), version
    return added
