"""Makes a float network an int8 one, and says how far the two are apart.

Rules:
- Static quantization in QDQ form: 8-bit unsigned activations, 8-bit signed weights with a scale per channel.
- Picture bytes are exact: the network sees (byte − 128) / 128, so scale 1/128 and zero point 128 lose nothing.
- A network gives logits, and may give features (1, d) and a heat map (1, rows, columns) as outputs of those names;
  one quantized graph gives them all.
- The shipped file takes what the preprocessing gives (height, width, channels last; raw bytes for pictures),
  so nothing is transposed or converted on the way. Names inside of it are short ones.
"""

import io
import tempfile
from collections.abc import Collection
from contextlib import redirect_stdout
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
from export.recipe import Ranges
from export.run import OnnxRunner

BYTE_SCALE = 1 / 128
BYTE_ZERO_POINT = 128
TOLERANCE_STEPS = 2.5
"""Engines round differently by up to 2 steps of the output (measured); half a step is for the comparison itself."""
_OUTPUTS = {"logits": 2, "features": 2, "heatmap": 3}
"""What a network may give, in the order in which sessions hand it out, with the number of axes."""
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_PERCENTILE = 99.99
_ROUND = 8
_SPAN_EXAMPLES = 64


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


def quantize(
    network: onnx.ModelProto,
    values: NDArray[Any],
    file: str = "model.onnx",
    *,
    ranges: Ranges = "minmax",
    keep_float: Collection[str] = (),
) -> Quantized:
    """Return the int8 form of a float network.

    Args:
        network: float ONNX, input (1, channels, height, width); outputs as `ordered` takes them.
        values: (n, height, width, channels) preprocessed training examples that set the ranges.
        file: name of the shipped file in the bundle.
        ranges: how an activation's range is taken from what was seen: all of it, all but the outermost 0.01 %, or
            what keeps the distribution nearest.
        keep_float: names of layers, as `layers` gives them, that are not quantized, or of whole parts of the network,
            with a stroke on both sides (`/stem/` is all that torch's submodule `stem` does).

    Raises:
        ModelError: the network has other inputs or outputs, or does not take these values.
    """
    qdq = stripped(_quantized(prepared(network), values, ranges, keep_float))
    shipped = channels_last(qdq, raw_bytes=values.dtype == np.uint8)
    steps = _steps(qdq, shipped, values)
    extras = {
        kind: TensorSpec(
            name=value.name, shape=_shape(value), dtype="float32", tolerance=TOLERANCE_STEPS * steps[value.name]
        )
        for kind, value in outputs_by_kind(qdq).items()
    }
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
        features=extras.get("features"),
        heatmap=extras.get("heatmap"),
        golden_tolerance=TOLERANCE_STEPS * steps[shipped.graph.output[0].name],
    )
    return Quantized(qdq, shipped.SerializeToString(deterministic=True), spec)


def layers(network: onnx.ModelProto) -> list[str]:
    """Return the names of the layers with weights, in the order of the graph, as `quantize` may keep them float."""
    return [node.name for node in prepared(network).graph.node if node.op_type in _WITH_WEIGHTS]


def prepared(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network as it is quantized: outputs in order, normalisation folded in, every node with a name."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    named = ordered(network)
    taken = [node.name for node in named.graph.node]
    for index, node in enumerate(named.graph.node):
        if not node.name or taken.count(node.name) > 1:
            node.name = f"{node.op_type}_{index}"
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "prepared.onnx"
        onnx.save(named, str(source))
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        return onnx.load(str(target))


def ordered(network: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with its outputs in the order in which sessions hand them out.

    Args:
        network: one input; one output of logits with any name, or several named `logits` (1, labels),
            `features` (1, d), `heatmap` (1, rows, columns).

    Raises:
        ModelError: other inputs or outputs.
    """
    if len(network.graph.input) != 1:
        raise ModelError(f"network: expected one input, got {len(network.graph.input)}")
    found = outputs_by_kind(network)
    for kind, value in found.items():
        shape = _shape(value)
        if len(shape) != _OUTPUTS[kind] or shape[0] != 1:
            raise ModelError(f"{kind}: expected {_OUTPUTS[kind]} axes with batch 1, got shape {shape}")
    model = onnx.ModelProto()
    model.CopyFrom(network)
    del model.graph.output[:]
    model.graph.output.extend(found[kind] for kind in _OUTPUTS if kind in found)
    return model


def outputs_by_kind(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Return the outputs of a graph by what they are.

    Raises:
        ModelError: several outputs whose names do not say what they are.
    """
    outputs = list(model.graph.output)
    if len(outputs) == 1:
        return {"logits": outputs[0]}
    names = [value.name for value in outputs]
    if "logits" not in names or not set(names) <= set(_OUTPUTS):
        raise ModelError(
            f"network: expected one output, or outputs named {', '.join(_OUTPUTS)}, got {', '.join(names) or 'none'}"
        )
    return dict(zip(names, outputs, strict=True))


def distance(network: onnx.ModelProto, quantized: Quantized, values: NDArray[Any]) -> Distance:
    """Return how far the int8 network is from the float one on these examples."""
    exact = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None])
    return distance_of(exact, OnnxRunner(quantized.shipped).logits(values[:, None]))


def distance_of(exact: NDArray[np.float32], coarse: NDArray[np.float32]) -> Distance:
    """Return how far int8 logits (n, labels) are from float ones."""
    error = np.abs(exact - coarse)
    return Distance(
        count=len(exact),
        agreement=float(np.mean(exact.argmax(1) == coarse.argmax(1))),
        logit_error=float(error.mean() / max(float(np.abs(exact).mean()), 1e-9)),
        max_logit_error=float(error.max()),
    )


def _steps(qdq: onnx.ModelProto, shipped: onnx.ModelProto, values: NDArray[Any]) -> dict[str, float]:
    """Return the size of one 8-bit step of each output; of one that stayed float, a 255th of what it spans."""
    graph = QdqGraph(qdq)
    steps: dict[str, float] = {}
    for value in qdq.graph.output:
        if graph.maker[value.name].op_type == "DequantizeLinear":
            steps[value.name] = graph.quantization_of(value.name)[0]
        else:
            runner = OnnxRunner(shipped.SerializeToString(), value.name)
            steps[value.name] = max(float(np.ptp(runner.logits(values[:_SPAN_EXAMPLES, None]))) / 255, 1e-6)
    return steps


def _quantized(
    network: onnx.ModelProto, values: NDArray[Any], ranges: Ranges, keep_float: Collection[str]
) -> onnx.ModelProto:
    """Run onnxruntime's static quantizer (it works on files)."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    name = network.graph.input[0].name
    options: dict[str, Any] = {}
    if values.dtype == np.uint8:
        options["TensorQuantOverrides"] = {
            name: [{"scale": np.array(BYTE_SCALE, np.float32), "zero_point": np.array(BYTE_ZERO_POINT, np.uint8)}]
        }
    if ranges != "minmax":
        # Histograms keep every activation of a round: a few examples at a time keep that small.
        values = values[: max(len(values) // _ROUND * _ROUND, 1)]
        options |= {"CalibStridedMinMax": min(_ROUND, len(values)), "CalibTensorRangeSymmetric": False}
    if ranges == "percentile":
        options["CalibPercentile"] = _PERCENTILE
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    # The quantizer prints its progress to the output that belongs to whoever called.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        source, target = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        onnx.save(network, str(source))
        quantize_static(
            str(source),
            str(target),
            _reader(name, values),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=methods[ranges],
            nodes_to_exclude=_nodes(network, keep_float),
            extra_options=options,
        )
        return onnx.load(str(target))


def _nodes(network: onnx.ModelProto, named: Collection[str]) -> list[str]:
    """Return the names of the nodes that are named, or lie in a part that is."""
    parts = [name for name in named if name.endswith("/")]
    return [node.name for node in network.graph.node if node.name in named or any(part in node.name for part in parts)]


def _reader(name: str, values: NDArray[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Hands out one example at a time, so that no copy of the whole set in float is made."""

        def __init__(self) -> None:
            self._position, self._end = 0, len(values)

        def __len__(self) -> int:
            return len(values)

        def set_range(self, start_index: int, end_index: int) -> None:
            self._position, self._end = start_index, end_index

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            if self._position >= self._end:
                return None
            self._position += 1
            return {name: to_network(values[self._position - 1 : self._position])}

    return Reader()


def channels_last(qdq: onnx.ModelProto, *, raw_bytes: bool) -> onnx.ModelProto:
    """Return the graph as devices load it: a transposition in front; raw bytes go straight in, not quantized first."""
    model = onnx.ModelProto()
    model.CopyFrom(qdq)
    graph = model.graph
    old = graph.input[0]
    batch, channels, height, width = _shape(old)
    inner = old.name + "_channels_first"
    kind = TensorProto.UINT8 if raw_bytes else TensorProto.FLOAT
    new = helper.make_tensor_value_info(old.name, kind, [batch, height, width, channels])
    real = inner
    if raw_bytes:
        firsts = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == old.name]
        for first in firsts:
            _expect_byte_quantization(graph, first)
            inner = first.output[0]
            graph.node.remove(first)
        real = inner + "_real"
    if _takes_instead(graph, old.name, real) and raw_bytes:
        graph.node.insert(0, _real_bytes(graph, inner, real))
    graph.input[0].CopyFrom(new)
    graph.node.insert(0, helper.make_node("Transpose", [old.name], [inner], perm=[0, 3, 1, 2], name="channels_first"))
    del graph.value_info[:]
    _shorten_names(graph)
    onnx.checker.check_model(model)
    return model


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number what has a name inside the graph: each tensor's stands in it several times, in all a twentieth of it."""
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    names[""] = ""  # an operator's input that is not given
    for item in graph.initializer:
        item.name = names.setdefault(item.name, str(len(names)))
    for node in graph.node:
        node.name = ""
        for listed in (node.input, node.output):
            for place, name in enumerate(listed):
                listed[place] = names.setdefault(name, str(len(names)))


def _takes_instead(graph: onnx.GraphProto, old: str, new: str) -> bool:
    """Let every node that takes one tensor take another; return whether there was any."""
    found = False
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new
                found = True
    return found


def _real_bytes(graph: onnx.GraphProto, source: str, target: str) -> onnx.NodeProto:
    """Return the node that makes real numbers of bytes, for a first layer that stayed float."""
    constants: dict[str, NDArray[Any]] = {
        "byte_scale": np.array(BYTE_SCALE, np.float32),
        "byte_zero_point": np.array(BYTE_ZERO_POINT, np.uint8),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return helper.make_node("DequantizeLinear", [source, *constants], [target], name="real_bytes")


def _expect_byte_quantization(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    scale, zero_point = float(constants[node.input[1]]), int(constants[node.input[2]])
    if scale != BYTE_SCALE or zero_point != BYTE_ZERO_POINT:
        raise ModelError(
            f"input: expected scale {BYTE_SCALE} and zero point {BYTE_ZERO_POINT}, got {scale} and {zero_point}"
        )


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
