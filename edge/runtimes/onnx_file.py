"""Reads the outline of an ONNX file (protobuf) and refuses what a bundle must not hold: pure.

Rules:
- Every message is walked by its length prefixes, nothing is copied or decoded beyond names; weights are skipped.
- Operators come from the sets that ONNX Runtime itself brings; data lies inside of the file, so that a model
  cannot make the engine read other files of the device.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from collections.abc import Callable, Iterator

from edge.errors import ModelError

ALLOWED_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""`com.microsoft` holds the engine's own quantized operators."""

_MAX_DEPTH = 8
"""Graphs within attributes of nodes within graphs: real models nest two or three deep."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MODEL_GRAPH, _MODEL_OPSETS, _MODEL_FUNCTIONS = 7, 8, 25
_GRAPH_NODES, _GRAPH_INITIALIZERS, _GRAPH_SPARSE = 1, 5, 15
_FUNCTION_NODES = 7
_NODE_ATTRIBUTES, _NODE_DOMAIN = 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_OPSET_DOMAIN = 1

_Field = tuple[int, memoryview | int]


def refuse_unsafe(model: bytes) -> None:
    """Raise if the file cannot be walked or holds what it must not.

    Raises:
        ModelError: not an ONNX file, an operator of a foreign set, or data outside of the file.
    """
    graphs = 0
    for number, value in _fields(memoryview(model)):
        if number == _MODEL_OPSETS:
            _refuse_domains(value, _OPSET_DOMAIN)
        elif number == _MODEL_GRAPH:
            graphs += 1
            _graph(value, 0)
        elif number == _MODEL_FUNCTIONS:
            _each(value, {_FUNCTION_NODES: _node}, 0)
    if graphs != 1:
        raise _damaged(f"{graphs} graphs")


def _graph(value: memoryview | int, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise _damaged("graphs nested too deep")
    _each(value, {_GRAPH_NODES: _node, _GRAPH_INITIALIZERS: _tensor, _GRAPH_SPARSE: _sparse}, depth)


def _node(value: memoryview | int, depth: int) -> None:
    _refuse_domains(value, _NODE_DOMAIN)
    _each(value, {_NODE_ATTRIBUTES: _attribute}, depth)


def _attribute(value: memoryview | int, depth: int) -> None:
    deeper = depth + 1
    inside = {_ATTRIBUTE_TENSOR: _tensor, _ATTRIBUTE_TENSORS: _tensor}
    _each(value, {**inside, _ATTRIBUTE_GRAPH: _graph, _ATTRIBUTE_GRAPHS: _graph}, deeper)


def _sparse(value: memoryview | int, depth: int) -> None:
    _each(value, {1: _tensor, 2: _tensor}, depth)


def _tensor(value: memoryview | int, _depth: int) -> None:
    for number, content in _fields(value):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and content != 0):
            raise ModelError(
                "the model keeps data outside of its file", hint="export it with all weights inside of the file"
            )


def _each(value: memoryview | int, visit: dict[int, Callable[[memoryview | int, int], None]], depth: int) -> None:
    for number, content in _fields(value):
        if number in visit:
            visit[number](content, depth)


def _refuse_domains(value: memoryview | int, where: int) -> None:
    for number, content in _fields(value):
        if number != where or isinstance(content, int):
            continue
        domain = bytes(content[:200]).decode("utf-8", "replace")
        if domain not in ALLOWED_DOMAINS:
            allowed = ", ".join(sorted(ALLOWED_DOMAINS - {""}))
            raise ModelError(f"the model uses operators of {domain!r}", hint=f"only these sets are allowed: {allowed}")


def _fields(view: memoryview | int) -> Iterator[_Field]:
    """Yield (field number, content) of one message; content is a number for varints."""
    if isinstance(view, int):
        raise _damaged("a number where a message should be")
    at, end = 0, len(view)
    while at < end:
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(view, at)
            yield tag >> 3, value
            continue
        if kind == _LENGTH:
            size, at = _varint(view, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _damaged(f"wire type {kind}")
        if size > end - at:
            raise _damaged("cut short")
        yield tag >> 3, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _damaged("cut short")


def _damaged(why: str) -> ModelError:
    return ModelError(f"not an ONNX file: {why}", hint="the file is damaged or of another format")
