"""Writes a float network as a file that devices load: for very small networks, where 8 bits cost more than they save.

Rules:
- It takes what the preprocessing gives, as the int8 file does: raw bytes for pictures, channels last.
- The arithmetic is the float network's own; (byte − 128) / 128 is one operator in front of it, and exact.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.wire.manifest import ModelFile, TensorSpec
from export import golden
from export.onnx_export import stripped
from export.quantize import BYTE_SCALE, BYTE_ZERO_POINT, outputs_by_kind, prepared

_RELATIVE, _LEAST = 1e-3, 1e-4
"""Tolerance, of the largest output and at least: processors and versions of an engine add in another order."""


def float_file(network: onnx.ModelProto, values: NDArray[Any], file: str = "model.onnx") -> tuple[bytes, ModelFile]:
    """Return the file and what the manifest says about it.

    Args:
        network: float ONNX as `export.quantize.quantize` takes it.
        values: (n, height, width, channels) preprocessed examples, by whose outputs the tolerances are set.
        file: its name in the bundle.

    Raises:
        ModelError: the network has other inputs or outputs.
    """
    inner = stripped(prepared(network))
    taken, model = _channels_last(inner, values)
    content = model.SerializeToString(deterministic=True)
    found = {
        kind: TensorSpec(name=value.name, shape=_shape(value), dtype="float32")
        for kind, value in outputs_by_kind(inner).items()
    }
    logits, features, heatmap = (found.get(kind) for kind in ("logits", "features", "heatmap"))
    assert logits is not None
    spec = ModelFile(
        file=file,
        runtime="onnx",
        precision="float32",
        input=taken,
        output=logits,
        features=features,
        heatmap=heatmap,
        golden_tolerance=1.0,
    )
    answers = golden.split(golden.answers(content, spec, values), spec)
    changed = {
        "golden_tolerance": _tolerance(answers.logits),
        "features": _with_tolerance(features, answers.features),
        "heatmap": _with_tolerance(heatmap, answers.heatmap),
    }
    return content, spec.model_copy(update=changed)


def _with_tolerance(output: TensorSpec | None, answers: NDArray[np.float32] | None) -> TensorSpec | None:
    if output is None or answers is None:
        return None
    return output.model_copy(update={"tolerance": _tolerance(answers)})


def _tolerance(answers: NDArray[np.float32]) -> float:
    return float(_RELATIVE * np.abs(answers).max() + _LEAST)


def _channels_last(inner: onnx.ModelProto, values: NDArray[Any]) -> tuple[TensorSpec, onnx.ModelProto]:
    """Return the input and the graph as devices load it: transposed in front, bytes made real."""
    model = onnx.ModelProto()
    model.CopyFrom(inner)
    graph = model.graph
    old = graph.input[0].name
    shape, real, turned = [1, *values.shape[1:]], f"{old}_real", f"{old}_channels_first"
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = real
    raw = values.dtype == np.uint8
    first = [helper.make_node("Transpose", [old], [turned if raw else real], perm=[0, 3, 1, 2])]
    if raw:
        names = [f"{old}_scale", f"{old}_zero"]
        numbers: list[NDArray[Any]] = [np.array(BYTE_SCALE, np.float32), np.array(BYTE_ZERO_POINT, np.uint8)]
        graph.initializer.extend(numpy_helper.from_array(n, name) for n, name in zip(numbers, names, strict=True))
        first.append(helper.make_node("DequantizeLinear", [turned, *names], [real]))
    for place, node in enumerate(first):
        graph.node.insert(place, node)
    kind = TensorProto.UINT8 if raw else TensorProto.FLOAT
    graph.input[0].CopyFrom(helper.make_tensor_value_info(old, kind, shape))
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return TensorSpec(name=old, shape=shape, dtype="uint8" if raw else "float32"), model


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
