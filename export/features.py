"""Adds outputs to a finished int8 network: the mean of one of its maps as features, a weighing of one as a heat map.

For bundles whose network was exported without them: nothing is trained, and no number that was there changes.

Rules:
- A map is one that the network computes anyway; only its mean over places (and one layer of one channel) is new.
- The range of what is new comes from examples; all else keeps its scale, so logits stay the same bit for bit.
- Both formats are written from one graph again, as `export.quantize` and `export.tflite` do.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.errors import ModelError
from edge.wire.manifest import ModelFile, TensorSpec
from export.onnx_export import stripped
from export.quantize import BYTE_SCALE, BYTE_ZERO_POINT, TOLERANCE_STEPS, Quantized, channels_last
from export.run import OnnxRunner

_FEATURES, _HEATMAP = "features", "heatmap"


def maps(content: bytes) -> list[tuple[str, list[int]]]:
    """Return (name, shape (1, channels, rows, columns)) of each map that a shipped ONNX network computes, in order."""
    model = onnx.load_from_string(content)
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inferred}
    constants = {item.name for item in model.graph.initializer}
    made = [n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in constants]
    return [(name, shapes[name]) for name in made if len(shapes.get(name, ())) == 4 and min(shapes[name][1:]) > 1]


def means(content: bytes, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the mean over places of a map (n, channels) for preprocessed values (n, …), not rounded."""
    model = onnx.load_from_string(content)
    model.graph.node.extend(_mean_of(name, "mean"))
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, None))
    return OnnxRunner(model.SerializeToString(), "mean").logits(values[:, None])


def at(content: bytes, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a map itself, (n, channels, rows, columns), for preprocessed values (n, …)."""
    model = onnx.load_from_string(content)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return OnnxRunner(model.SerializeToString(), name).logits(values[:, None])


def with_heatmap(
    content: bytes, spec: ModelFile, name: str, weights: NDArray[np.float32], bias: float, examples: NDArray[Any]
) -> Quantized:
    """Return a shipped ONNX network with a weighing of one of its maps as its heat map; what is below 0 becomes 0.

    Args:
        content: the file.
        spec: its entry in the manifest; without a heat map.
        name: of the map, as `maps` gives it.
        weights: (channels,) of the layer of one channel.
        bias: of the same.
        examples: (n, …) preprocessed values that set the range of the heat map.

    Raises:
        ModelError: it gives a heat map already.
    """
    if spec.heatmap is not None:
        raise ModelError("network: it gives a heat map already")
    seen = np.einsum("nchw,c->nhw", at(content, name, examples), weights) + bias
    qdq = _channels_first(onnx.load_from_string(content), spec)
    graph = qdq.graph
    _, rows, columns = seen.shape
    step = np.float32(max(float(seen.max()), 1e-6) / 255)
    graph.initializer.extend(_weighing(graph, name, weights, bias, step))
    graph.node.extend(
        [
            helper.make_node("DequantizeLinear", ["heat_w8", "heat_ws", "heat_wz"], ["heat_w"], axis=0),
            helper.make_node("DequantizeLinear", ["heat_b32", "heat_bs", "heat_bz"], ["heat_b"], axis=0),
            helper.make_node(
                "Conv", [name, "heat_w", "heat_b"], ["heat_sum"], name="heat", kernel_shape=[1, 1], strides=[1, 1]
            ),
            *_rounded("heat_sum", "heat_map", "heat"),
            helper.make_node("Squeeze", ["heat_map", "heat_axes"], ["heat_flat"], name="heat_flat"),
            *_rounded("heat_flat", _HEATMAP, "heat"),
        ]
    )
    shape = [1, rows, columns]
    graph.output.append(helper.make_tensor_value_info(_HEATMAP, TensorProto.FLOAT, shape))
    del graph.value_info[:]
    qdq = stripped(qdq)
    shipped = channels_last(qdq, raw_bytes=spec.input.dtype == "uint8")
    heat = TensorSpec(name=_HEATMAP, shape=shape, dtype="float32", tolerance=TOLERANCE_STEPS * float(step))
    return Quantized(qdq, shipped.SerializeToString(deterministic=True), spec.model_copy(update={"heatmap": heat}))


def with_features(content: bytes, spec: ModelFile, name: str, examples: NDArray[Any]) -> Quantized:
    """Return a shipped ONNX network with the mean over places of one of its maps as features.

    Args:
        content: the file.
        spec: its entry in the manifest; without features.
        name: of the map, as `maps` gives it.
        examples: (n, …) preprocessed values that set the range of the features.

    Raises:
        ModelError: it gives features already, or stayed float in part.
    """
    if spec.features is not None:
        raise ModelError("network: it gives features already")
    seen = means(content, name, examples)
    qdq = _channels_first(onnx.load_from_string(content), spec)
    graph = qdq.graph
    heat = [value for value in graph.output if value.name == "heatmap"]
    logits = _renamed(graph, spec.output.name, "logits")
    low, high = min(0.0, float(seen.min())), max(float(seen.max()), 1e-6)
    scale = np.float32((high - low) / 255)
    zero = np.uint8(round(-low / float(scale)))
    graph.initializer.extend(
        [numpy_helper.from_array(np.array(scale), "mean_scale"), numpy_helper.from_array(np.array(zero), "mean_zero")]
    )
    pooled, flat = _mean_of(name, "mean_flat")
    graph.node.extend([pooled, *_rounded(pooled.output[0], "mean_pooled_8")])
    flat.input[0] = "mean_pooled_8"
    graph.node.extend([flat, *_rounded("mean_flat", _FEATURES)])
    shape = [1, seen.shape[1]]
    del graph.output[:]
    graph.output.extend([logits, helper.make_tensor_value_info(_FEATURES, TensorProto.FLOAT, shape), *heat])
    del graph.value_info[:]
    qdq = stripped(qdq)
    shipped = channels_last(qdq, raw_bytes=spec.input.dtype == "uint8")
    tolerance = TOLERANCE_STEPS * float(scale)
    changed = spec.model_copy(
        update={
            "output": spec.output.model_copy(update={"name": "logits"}),
            "features": TensorSpec(name=_FEATURES, shape=shape, dtype="float32", tolerance=tolerance),
        }
    )
    return Quantized(qdq, shipped.SerializeToString(deterministic=True), changed)


def _mean_of(name: str, out: str) -> list[onnx.NodeProto]:
    pooled = f"{out}_pooled"
    return [
        helper.make_node("GlobalAveragePool", [name], [pooled], name=pooled),
        helper.make_node("Flatten", [pooled], [out], name=out),
    ]


def _weighing(
    graph: onnx.GraphProto, name: str, weights: NDArray[np.float32], bias: float, step: np.float32
) -> list[onnx.TensorProto]:
    """Return the constants of one layer of one channel, as the quantizer writes them."""
    map_made = next(node for node in graph.node if name in node.output)
    map_step = next(numpy_helper.to_array(item) for item in graph.initializer if item.name == map_made.input[1])
    weight_step = np.float32(max(float(np.abs(weights).max()), 1e-6) / 127)
    bias_step = np.float32(map_step) * weight_step
    values: dict[str, NDArray[Any]] = {
        "heat_w8": np.rint(weights / weight_step).astype(np.int8).reshape(1, -1, 1, 1),
        "heat_ws": np.array([weight_step], np.float32),
        "heat_wz": np.zeros(1, np.int8),
        "heat_b32": np.array([round(bias / float(bias_step))], np.int32),
        "heat_bs": np.array([bias_step], np.float32),
        "heat_bz": np.zeros(1, np.int32),
        "heat_scale": np.array(step, np.float32),
        "heat_zero": np.array(0, np.uint8),
        "heat_axes": np.array([1], np.int64),
    }
    return [numpy_helper.from_array(value, key) for key, value in values.items()]


def _rounded(name: str, out: str, by: str = "mean") -> Sequence[onnx.NodeProto]:
    """Return the nodes that round to eight bits and back, as the quantizer writes them."""
    constants = [f"{by}_scale", f"{by}_zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [f"{out}_quantized"], name=f"{out}_q"),
        helper.make_node("DequantizeLinear", [f"{out}_quantized", *constants], [out], name=f"{out}_dq"),
    ]


def _renamed(graph: onnx.GraphProto, old: str, new: str) -> onnx.ValueInfoProto:
    """Give an output another name; return what the graph says about it."""
    for node in graph.node:
        for listed in (node.input, node.output):
            for place, name in enumerate(listed):
                listed[place] = new if name == old else name
    found = onnx.ValueInfoProto()
    found.CopyFrom(next(value for value in graph.output if value.name == old))
    found.name = new
    return found


def _channels_first(shipped: onnx.ModelProto, spec: ModelFile) -> onnx.ModelProto:
    """Undo what `channels_last` did: return the graph as the quantizer wrote it."""
    model = onnx.ModelProto()
    model.CopyFrom(shipped)
    graph = model.graph
    first = graph.node[0]
    if first.op_type != "Transpose" or first.input[0] != graph.input[0].name:
        raise ModelError("network: expected a file as this exporter writes it, with a transposition in front")
    name, inner = graph.input[0].name, first.output[0]
    graph.node.remove(first)
    if spec.input.dtype == "uint8":
        constants: dict[str, NDArray[Any]] = {
            "byte_scale_in": np.array(BYTE_SCALE, np.float32),
            "byte_zero_in": np.array(BYTE_ZERO_POINT, np.uint8),
        }
        graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
        graph.node.insert(0, helper.make_node("QuantizeLinear", [name, *constants], [inner], name="byte_in"))
    else:
        for node in graph.node:
            for place, given in enumerate(node.input):
                node.input[place] = name if given == inner else given
    batch, height, width, channels = spec.input.shape
    wanted = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, height, width])
    graph.input[0].CopyFrom(wanted)
    return model
