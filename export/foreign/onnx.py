"""Reads ONNX files from elsewhere and brings them into the form that devices run: batch 1, one input, one output.

Rules:
- What is changed is the outline, never the arithmetic: open sizes are fixed, outputs that nobody asked for go, a
  softmax or sigmoid at the very end is cut off (its input are the logits), exotic number types are cast.
- Weights kept in files beside it are taken in; operators that devices refuse are named here already.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from edge.errors import ConfigError, ModelError
from edge.runtimes.onnx_file import refuse_unsafe
from edge.wire.manifest import TensorSpec
from export.foreign.model import Asked, Foreign, Layout, Values, check_labels, one_of, picture_of
from export.onnx_export import stripped

_OLDEST, _TARGET = 13, 17
"""Operator sets older than the first are converted to the second: quantization per channel needs it."""
_SPEAKS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.UINT8: "uint8",
    TensorProto.INT8: "int8",
    TensorProto.FLOAT16: "float32",
    TensorProto.DOUBLE: "float32",
    TensorProto.INT32: "float32",
    TensorProto.INT64: "float32",
}
"""What a device hands over for each number type; the others are cast inside of the file."""
_ENDS: dict[str, Values] = {"Softmax": "probabilities", "LogSoftmax": "logits", "Sigmoid": "sigmoids"}
_FORM_ONLY = {
    "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast", "QuantizeLinear", "DequantizeLinear", "Dropout"
}  # fmt: skip
_INT8_OPERATORS = ("QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm")
_IN_ITS_SOURCE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (/\S+:\d+ .*\) (?=[A-Z]))?")
"""The engine's error code and the place in its source, in front of what it says."""


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, with weights that lie beside it.

    Raises:
        ModelError: it is damaged, or weights are missing.
    """
    try:
        model: onnx.ModelProto = onnx.load(str(path))
        if not model.graph.node:
            raise ModelError(f"{path.name}: not an ONNX file, or one without operators")
    except ModelError:
        raise
    except Exception as error:  # protobuf, the file system and the loader of outside data each have their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"{path.name}: cannot be read as ONNX: {first}",
            hint="the file is damaged or of another format; if it keeps its weights in a second file, put it beside it",
        ) from error
    return model


def read_onnx(model: onnx.ModelProto, name: str, asked: Asked) -> Foreign:
    """Return what an ONNX model takes and gives, and the file in the form that devices run.

    Args:
        model: as it was read.
        name: of the file, for messages.
        asked: what the user said.

    Raises:
        ModelError: it has other inputs and outputs than a classifier, or devices refuse it.
        ConfigError: the file leaves something open.
    """
    refuse_unsafe(model.SerializeToString())
    notes: list[str] = []
    model = _modern(stripped(model), notes)
    graph = model.graph
    _widen(graph, notes)
    _keep_output(graph, one_of([item.name for item in graph.output], name, asked.output), notes)
    taken = _only_input(graph, name)
    layout, picture = _fix_sizes(taken, name, asked)
    dtype = _cast_input(graph, taken, name, notes)
    values = _end_in_logits(graph, asked, notes)
    shape = _run_once(model, taken, name)
    check_labels(shape, graph.output[0].name, values)
    _flatten_output(graph, shape)
    del graph.value_info[:]
    quantized = any(node.op_type in _INT8_OPERATORS for node in graph.node)
    taken_shape = [item.dim_value for item in taken.type.tensor_type.shape.dim]
    float_model = None if quantized or dtype != "float32" else model
    return Foreign(
        runtime="onnx",
        content=model.SerializeToString(deterministic=True),
        precision="int8" if quantized else "float32",
        input=TensorSpec(name=taken.name, shape=taken_shape, dtype=dtype, layout=layout),
        output=TensorSpec(name=graph.output[0].name, shape=[1, int(np.prod(shape))], dtype="float32", values=values),
        picture=picture,
        float_onnx=float_model,
        notes=notes,
    )


def channels_first(model: onnx.ModelProto, foreign: Foreign, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the float model with input (1, channels, height, width), as the quantizer takes it.

    Args:
        model: `foreign.float_onnx`.
        foreign: what it takes.
        shape: (height, width, channels) of the preprocessed values.
    """
    height, width, channels = shape
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    old = next(item for item in graph.input if item.name == foreign.input.name)
    if foreign.input.shape == [1, channels, height, width]:
        return changed
    inner = old.name + "_as_it_was"
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old.name:
                node.input[index] = inner
    if foreign.input.shape == [1, height, width, channels]:
        first = [helper.make_node("Transpose", [old.name], [inner], perm=[0, 2, 3, 1], name="as_it_was")]
    else:
        target = numpy_helper.from_array(np.array(foreign.input.shape, np.int64), old.name + "_shape")
        graph.initializer.append(target)
        last = old.name + "_channels_last"
        first = [
            helper.make_node("Transpose", [old.name], [last], perm=[0, 2, 3, 1], name="channels_last"),
            helper.make_node("Reshape", [last, target.name], [inner], name="as_it_was"),
        ]
    new = helper.make_tensor_value_info(old.name, TensorProto.FLOAT, [1, channels, height, width])
    old.CopyFrom(new)
    for node in reversed(first):
        graph.node.insert(0, node)
    return changed


def _modern(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    version = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if version >= _OLDEST:
        return model
    try:
        converted: onnx.ModelProto = version_converter.convert_version(model, _TARGET)
    except Exception:  # noqa: BLE001 - the converter fails in many ways; the engine still reads old sets
        notes.append(f"operator set {version} is old and could not be converted")
        return model
    notes.append(f"operator set {version} converted to {_TARGET}")
    return converted


def _widen(graph: onnx.GraphProto, notes: list[str]) -> None:
    """Make a network in float16 one in float32: processors beside the line compute that faster, or only that."""
    half, full = TensorProto.FLOAT16, TensorProto.FLOAT
    if not any(item.data_type == half for item in graph.initializer):
        return
    for tensor in [
        *graph.initializer,
        *(item.t for node in graph.node for item in node.attribute if item.HasField("t")),
    ]:
        if tensor.data_type == half:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for node in graph.node:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == half:
                item.i = full
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type == half:
            value.type.tensor_type.elem_type = full
    del graph.value_info[:]
    notes.append("float16 widened to float32")


def _keep_output(graph: onnx.GraphProto, at: int, notes: list[str]) -> None:
    if len(graph.output) > 1:
        kept = graph.output[at].name
        notes.append(f"of {len(graph.output)} outputs only {kept!r} is kept")
        _end_at(graph, kept, graph.output[at].type.tensor_type.elem_type)


def _only_input(graph: onnx.GraphProto, name: str) -> onnx.ValueInfoProto:
    constants = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in constants]
    if len(inputs) != 1:
        listed = ", ".join(item.name for item in inputs) or "none"
        raise ModelError(
            f"{name}: expected one input, got {len(inputs)}: {listed}",
            hint="a model that takes its own state, or more than the picture or sound, cannot be judged alone; "
            "export a version that takes a whole window or picture at once",
        )
    # Old files list their weights as inputs too; the engine then keeps them changeable, and slow.
    del graph.input[:]
    graph.input.append(inputs[0])
    taken: onnx.ValueInfoProto = graph.input[0]
    return taken


def _fix_sizes(taken: onnx.ValueInfoProto, name: str, asked: Asked) -> tuple[Layout, tuple[int, int, int] | None]:
    """Give the input batch 1 and, where the file leaves them open, the sizes that were asked for."""
    dims = taken.type.tensor_type.shape.dim
    if not dims:
        raise ModelError(
            f"{name}: input {taken.name!r} has no shape", hint="export the model with the shape of its input"
        )
    sizes = [item.dim_value if item.HasField("dim_value") and item.dim_value > 0 else 0 for item in dims]
    if sizes[0] not in (0, 1):
        raise ModelError(
            f"{name}: input {taken.name!r}: expected batch 1 or an open one, got {sizes[0]}",
            hint="export the model with batch 1, or with a dynamic batch",
        )
    sizes[0] = 1
    if len(sizes) == 4 and not asked.sound:
        sizes = _sized(sizes, asked, name)
    if not all(sizes):
        raise ConfigError(
            f"{name}: input {taken.name!r} leaves sizes open: {['?' if n == 0 else n for n in sizes]}",
            hint="say the size of the pictures: --size WIDTHxHEIGHT"
            if not asked.sound
            else "export the model with a fixed input size",
        )
    for item, size in zip(dims, sizes, strict=True):
        item.Clear()
        item.dim_value = size
    return picture_of(sizes, taken.name, asked)


def _sized(sizes: list[int], asked: Asked, name: str) -> list[int]:
    if all(sizes) or asked.size is None:
        return sizes
    width, height = asked.size
    last = asked.layout == "channels_last" or (asked.layout is None and sizes[3] in (1, 3) and sizes[1] not in (1, 3))
    wanted = [1, height, width, sizes[3] or 3] if last else [1, sizes[1] or 3, height, width]
    for got, want in zip(sizes, wanted, strict=True):
        if got not in (0, want):
            raise ConfigError(f"--size {width}x{height}: the model {name} takes {sizes}, where 0 is open")
    return wanted


def _cast_input(graph: onnx.GraphProto, taken: onnx.ValueInfoProto, name: str, notes: list[str]) -> Any:
    kind = taken.type.tensor_type.elem_type
    if kind not in _SPEAKS:
        raise ModelError(
            f"{name}: input {taken.name!r}: expected numbers, got {TensorProto.DataType.Name(kind).lower()}",
            hint="export the network without its tokenizer or decoder",
        )
    if kind in (TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8):
        return _SPEAKS[kind]
    inner = taken.name + "_cast"
    for node in graph.node:
        for index, item in enumerate(node.input):
            if item == taken.name:
                node.input[index] = inner
    graph.node.insert(0, helper.make_node("Cast", [taken.name], [inner], to=kind, name="cast_input"))
    taken.type.tensor_type.elem_type = TensorProto.FLOAT
    notes.append(f"input cast from float32 to {TensorProto.DataType.Name(kind).lower()}")
    return "float32"


def _end_in_logits(graph: onnx.GraphProto, asked: Asked, notes: list[str]) -> Values:
    """Cut a softmax or sigmoid off the end; return what the output gives now."""
    if asked.values == "logits":
        return "logits"
    makers = {output: node for node in graph.node for output in node.output}
    end = makers.get(graph.output[0].name)
    while end is not None and end.op_type in _FORM_ONLY:
        end = makers.get(end.input[0])
    if end is None or end.op_type not in _ENDS:
        return asked.values or "logits"
    if end.op_type == "Sigmoid" or _quantized(makers.get(end.input[0])):
        # Sigmoids may be one number for two labels; what comes before a quantized softmax has another scale.
        return asked.values or _ENDS[end.op_type]
    _end_at(graph, end.input[0], TensorProto.FLOAT)
    notes.append(f"the {end.op_type.lower()} at the end was cut off: its input are the logits")
    return "logits"


def _quantized(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type.startswith(("QLinear", "Quantize"))


def _end_at(graph: onnx.GraphProto, output: str, kind: int) -> None:
    """Let the graph end at a tensor, and drop what only led elsewhere."""
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, kind, None))
    if any(item.HasField("g") or item.graphs for node in graph.node for item in node.attribute):
        return  # graphs inside of nodes may use anything
    needed = {output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    constants = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    constant_names = {item.name for item in constants}
    inputs = [item for item in graph.input if item.name in needed or item.name in constant_names]
    del graph.input[:]
    graph.input.extend(inputs)


def _run_once(model: onnx.ModelProto, taken: onnx.ValueInfoProto, name: str) -> list[int]:
    """Return the output's shape, found by running the model on zeros."""
    import onnxruntime as ort

    output = model.graph.output[0]
    if not output.type.tensor_type.elem_type:
        output.type.tensor_type.elem_type = TensorProto.FLOAT
    try:
        answer = _answer(model, taken)
    except Exception as error:  # the engine's exceptions have no base of their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{name}: onnxruntime {ort.__version__} does not run it: {_IN_ITS_SOURCE.sub('', first)[:300]}",
            hint="it needs an operator or a number type that this engine has not, or another input size (--size)",
        ) from error
    if answer.dtype != np.float32:
        _cast_output(model.graph)
    return list(answer.shape)


def _answer(model: onnx.ModelProto, taken: onnx.ValueInfoProto) -> NDArray[Any]:
    import onnxruntime as ort

    from edge.runtimes.onnx import exact_session

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = exact_session(model.SerializeToString(), options)
    tensor = taken.type.tensor_type
    zeros = np.zeros([item.dim_value for item in tensor.shape.dim], helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return np.asarray(session.run(None, {taken.name: zeros})[0])


def _cast_output(graph: onnx.GraphProto) -> None:
    """End in float32. Of 8-bit numbers the scale is undone where the file says it, else by the calibration."""
    old = graph.output[0].name
    new = old + "_float"
    maker = next((node for node in graph.node if old in node.output), None)
    if maker is not None and maker.op_type == "QuantizeLinear":
        node = helper.make_node("DequantizeLinear", [old, *maker.input[1:]], [new], name="float_output")
    else:
        node = helper.make_node("Cast", [old], [new], to=TensorProto.FLOAT, name="float_output")
    graph.node.append(node)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(new, TensorProto.FLOAT, None))


def _flatten_output(graph: onnx.GraphProto, shape: list[int]) -> None:
    """End in (1, labels), and say so in the file."""
    count = int(np.prod(shape))
    old = graph.output[0].name
    if shape != [1, count]:
        new = old + "_flat"
        graph.initializer.append(numpy_helper.from_array(np.array([1, count], np.int64), new + "_shape"))
        graph.node.append(helper.make_node("Reshape", [old, new + "_shape"], [new], name="flat_output"))
        old = new
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(old, TensorProto.FLOAT, [1, count]))
