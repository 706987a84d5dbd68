"""Makes a float network an int8 one, and says how far the two are apart.

Rules:
- Static quantization in QDQ form: 8-bit unsigned activations, 8-bit signed weights with a scale per channel.
- Picture bytes are exact: the network sees (byte − 128) / 128, so scale 1/128 and zero point 128 lose nothing.
- The shipped file takes what the preprocessing gives (height, width, channels last; raw bytes for pictures),
  so nothing is transposed or converted on the way.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.errors import ModelError
from edge.wire.manifest import ModelFile, TensorSpec
from export.onnx_export import stripped
from export.qdq import QdqGraph
from export.run import OnnxRunner

BYTE_SCALE = 1 / 128
BYTE_ZERO_POINT = 128
_TOLERANCE_STEPS = 2.5
"""Engines round differently by up to 2 steps of the output (measured); half a step is for the comparison itself."""


@dataclass(frozen=True)
class Quantized:
    """An int8 network: `qdq` as the quantizer wrote it (for the TFLite writer), `shipped` as devices load it."""

    qdq: onnx.ModelProto
    shipped: bytes
    spec: ModelFile


@dataclass(frozen=True)
class Distance:
    """How far the int8 network is from the float one, on the same examples."""

    count: int
    agreement: float
    """Share of examples with the same likeliest label."""
    logit_error: float
    """Mean absolute difference of logits over the mean absolute float logit."""
    max_logit_error: float
    """Largest absolute difference of any logit."""


def to_network(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return preprocessed values (n, height, width, channels) as the float network takes them, channels first."""
    if values.dtype == np.uint8:
        values = (values.astype(np.float32) - BYTE_ZERO_POINT) * np.float32(BYTE_SCALE)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2), np.float32)


def quantize(network: onnx.ModelProto, values: NDArray[Any], file: str = "model.onnx") -> Quantized:
    """Return the int8 form of a float network.

    Args:
        network: float ONNX, input (1, channels, height, width), one output of logits.
        values: (n, height, width, channels) preprocessed training examples that set the ranges.
        file: name of the shipped file in the bundle.

    Raises:
        ModelError: the network has more than one input or output, or does not take these values.
    """
    if len(network.graph.input) != 1 or len(network.graph.output) != 1:
        raise ModelError(
            f"network: expected one input and one output, "
            f"got {len(network.graph.input)} and {len(network.graph.output)}"
        )
    qdq = stripped(_quantized(network, values))
    shipped = _channels_last(qdq, raw_bytes=values.dtype == np.uint8)
    output_scale, _ = QdqGraph(qdq).output_quantization()
    spec = ModelFile(
        file=file,
        runtime="onnx",
        precision="int8",
        input=TensorSpec(
            name=shipped.graph.input[0].name,
            shape=[1, *values.shape[1:]],
            dtype="uint8" if values.dtype == np.uint8 else "float32",
        ),
        output=TensorSpec(name=shipped.graph.output[0].name, shape=_shape(shipped.graph.output[0]), dtype="float32"),
        golden_tolerance=_TOLERANCE_STEPS * output_scale,
    )
    return Quantized(qdq, shipped.SerializeToString(deterministic=True), spec)


def distance(network: onnx.ModelProto, quantized: Quantized, values: NDArray[Any]) -> Distance:
    """Return how far the int8 network is from the float one on these examples."""
    exact = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None])
    coarse = OnnxRunner(quantized.shipped).logits(values[:, None])
    error = np.abs(exact - coarse)
    return Distance(
        count=len(values),
        agreement=float(np.mean(exact.argmax(1) == coarse.argmax(1))),
        logit_error=float(error.mean() / max(float(np.abs(exact).mean()), 1e-9)),
        max_logit_error=float(error.max()),
    )


def _quantized(network: onnx.ModelProto, values: NDArray[Any]) -> onnx.ModelProto:
    """Run onnxruntime's static quantizer (it works on files)."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = network.graph.input[0].name
    options: dict[str, Any] = {}
    if values.dtype == np.uint8:
        options["TensorQuantOverrides"] = {
            name: [{"scale": np.array(BYTE_SCALE, np.float32), "zero_point": np.array(BYTE_ZERO_POINT, np.uint8)}]
        }
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, target = (Path(folder) / f"{stage}.onnx" for stage in ("float", "prepared", "int8"))
        onnx.save(network, str(source))
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(target),
            _reader(name, values),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
        )
        return onnx.load(str(target))


def _reader(name: str, values: NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out one example at a time, so that no copy of the whole set in float is made."""

        def __init__(self) -> None:
            self._position = 0

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            if self._position >= len(values):
                return None
            self._position += 1
            return {name: to_network(values[self._position - 1 : self._position])}

    return Reader()


def _channels_last(qdq: onnx.ModelProto, *, raw_bytes: bool) -> onnx.ModelProto:
    """Put a transposition in front; for raw bytes, drop the first quantization so that bytes go straight in."""
    model = onnx.ModelProto()
    model.CopyFrom(qdq)
    graph = model.graph
    old = graph.input[0]
    batch, channels, height, width = _shape(old)
    inner = old.name + "_channels_first"
    kind = TensorProto.UINT8 if raw_bytes else TensorProto.FLOAT
    new = helper.make_tensor_value_info(old.name, kind, [batch, height, width, channels])
    if raw_bytes:
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == old.name)
        _expect_byte_quantization(graph, first)
        inner = first.output[0]
        graph.node.remove(first)
    else:
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == old.name:
                    node.input[index] = inner
    graph.input[0].CopyFrom(new)
    graph.node.insert(0, helper.make_node("Transpose", [old.name], [inner], perm=[0, 3, 1, 2], name="channels_first"))
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def _expect_byte_quantization(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    scale, zero_point = float(constants[node.input[1]]), int(constants[node.input[2]])
    if scale != BYTE_SCALE or zero_point != BYTE_ZERO_POINT:
        raise ModelError(
            f"input: expected scale {BYTE_SCALE} and zero point {BYTE_ZERO_POINT}, got {scale} and {zero_point}"
        )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
