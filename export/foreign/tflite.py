"""Reads TFLite files from elsewhere: tensors, quantization, operators, state.

Rules:
- The file is shipped byte for byte, unless one of several outputs is chosen: then only the list of outputs changes.
- A model that keeps state between calls is refused: a decision must follow from one input alone, and be replayed.
- What LiteRT itself does not load is refused in its words, with the operators that it may be about.

Format: https://github.com/google-ai-edge/LiteRT/blob/main/tflite/converter/schema/schema.fbs
"""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from edge.errors import ModelError
from edge.wire.manifest import TensorSpec
from export.foreign.model import Asked, Foreign, Values, check_labels, one_of, picture_of, values_of

_IDENTIFIER = b"TFL3"
_STATEFUL = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE"}
_PASSED = {"QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST"}
_GIVES: dict[str, Values] = {"SOFTMAX": "probabilities", "LOGISTIC": "sigmoids"}
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_DTYPES = ("uint8", "int8", "float32")


def read_tflite(content: bytes, name: str, asked: Asked) -> Foreign:
    """Return what a TFLite file takes and gives.

    Args:
        content: the file.
        name: of the file, for messages.
        asked: what the user said.

    Raises:
        ModelError: it is damaged, keeps state, or has other inputs and outputs than a classifier.
        ConfigError: the file leaves something open.
    """
    model = _parsed(content, name)
    graph = model.subgraphs[0]
    operators = [_operator(model, item) for item in graph.operators or []]
    _refuse_state(name, graph, operators)
    if len(graph.inputs) != 1:
        names = ", ".join(_name(graph, index) for index in graph.inputs)
        raise ModelError(
            f"{name}: expected one input, got {len(graph.inputs)}: {names}",
            hint="a model that takes its own state, or more than the picture or sound, cannot be judged alone",
        )
    _refuse_dtype(name, graph, graph.inputs[0])
    at = one_of([_name(graph, index) for index in graph.outputs], name, asked.output)
    notes = []
    gives = _gives(operators, graph.outputs[at])
    if len(graph.outputs) > 1:
        notes.append(f"of {len(graph.outputs)} outputs only {_name(graph, graph.outputs[at])!r} is kept")
        graph.outputs = [graph.outputs[at]]
        model.signatureDefs = None
        content = _packed(model)
    interpreter = _loaded(content, name, operators)
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if any(int(size) < 1 for size in list(taken["shape_signature"])[1:]):
        raise ModelError(
            f"{name}: expected fixed sizes, got input {list(map(int, taken['shape_signature']))}",
            hint="convert it again with a fixed input size",
        )
    layout, picture = picture_of([int(n) for n in taken["shape"]], str(taken["name"]), asked)
    values = values_of(asked, gives)
    check_labels([int(n) for n in given["shape"]], str(given["name"]), values)
    return Foreign(
        runtime="tflite",
        content=content,
        precision="int8" if _is_int8(graph) else "float32",
        input=_spec(taken).model_copy(update={"layout": layout}),
        output=_spec(given).model_copy(update={"values": values}),
        picture=picture,
        notes=notes,
    )


def _parsed(content: bytes, name: str) -> Any:
    if content[4:8] != _IDENTIFIER:
        raise ModelError(f"{name}: not a TFLite file", hint="the file is damaged or of another format")
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        if not model.subgraphs or model.subgraphs[0].inputs is None or model.subgraphs[0].outputs is None:
            raise ModelError(f"{name}: the TFLite file holds no graph with inputs and outputs")
    except ModelError:
        raise
    except Exception as error:  # damaged offsets trip the generated reader in many ways
        raise ModelError(f"{name}: damaged TFLite file: {error}", hint="fetch it again") from error
    return model


def _operator(model: Any, item: Any) -> tuple[str, Any]:
    code = model.operatorCodes[item.opcodeIndex]
    if code.customCode:
        return f"custom {code.customCode.decode(errors='replace')}", item
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return _NAMES.get(number, f"operator {number}"), item


def _refuse_state(name: str, graph: Any, operators: list[tuple[str, Any]]) -> None:
    found = sorted({kind for kind, _ in operators} & _STATEFUL)
    found += sorted({"a variable tensor" for tensor in graph.tensors if tensor.isVariable})
    if found:
        raise ModelError(
            f"{name}: expected a model whose answer follows from one input, got one that keeps state between calls "
            f"({', '.join(found)})",
            hint="export the model that takes a whole window at once instead of the streaming one",
        )


def _refuse_dtype(name: str, graph: Any, index: int) -> None:
    kinds = {schema.TensorType.UINT8, schema.TensorType.INT8, schema.TensorType.FLOAT32}
    kind = graph.tensors[index].type
    if kind not in kinds:
        words = next((word for word, number in vars(schema.TensorType).items() if number == kind), str(kind)).lower()
        raise ModelError(
            f"{name}: input {_name(graph, index)!r}: expected uint8, int8 or float32, got {words}",
            hint="convert it again with another inference_input_type",
        )


def _gives(operators: list[tuple[str, Any]], index: int) -> Values:
    """Walk back from an output over what only changes its form."""
    makers = {int(output): (kind, item) for kind, item in operators for output in item.outputs}
    while index in makers:
        kind, item = makers[index]
        if kind not in _PASSED:
            return _GIVES.get(kind, "logits")
        index = int(item.inputs[0])
    return "logits"


def _loaded(content: bytes, name: str, operators: list[tuple[str, Any]]) -> Any:
    from edge.runtimes.tflite import load_interpreter

    try:
        return load_interpreter(content, 1)
    except ModelError as error:
        custom = sorted({kind.removeprefix("custom ") for kind, _ in operators if kind.startswith("custom ")})
        about = f"; it needs the custom operators {', '.join(custom)}" if custom else ""
        first = str(error).splitlines()[0][:300]
        raise ModelError(
            f"{name}: {first}{about}", hint="convert it again with the current TFLite converter and built-in operators"
        ) from error


def _packed(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(2**20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _is_int8(graph: Any) -> bool:
    """Whether most weights and activations are 8-bit."""
    kinds = [tensor.type for tensor in graph.tensors]
    narrow = sum(kind in (schema.TensorType.INT8, schema.TensorType.UINT8) for kind in kinds)
    return bool(narrow > sum(kind == schema.TensorType.FLOAT32 for kind in kinds))


def _spec(detail: dict[str, Any]) -> TensorSpec:
    dtype = np.dtype(detail["dtype"]).name
    scale, zero_point = detail["quantization"]
    quantized = dtype != "float32" and scale > 0
    if dtype not in _DTYPES:
        raise ModelError(f"tensor {detail['name']!r}: expected uint8, int8 or float32, got {dtype}")
    return TensorSpec(
        name=str(detail["name"]),
        shape=[int(size) for size in detail["shape"]],
        dtype=dtype,
        scale=float(scale) if quantized else None,
        zero_point=int(zero_point) if quantized else None,
    )


def _name(graph: Any, index: int) -> str:
    return str((graph.tensors[index].name or b"").decode(errors="replace"))
