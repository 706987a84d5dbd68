"""The outline of an ONNX file: what it may not hold is found wherever it hides, and nothing but words comes of it."""

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge.errors import ModelError
from edge.runtimes import open_session
from edge.runtimes.onnx_file import refuse_unsafe
from tests.seams.networks import example, hanging


def _model() -> onnx.ModelProto:
    return onnx.load_from_string(hanging()[0])


def _external(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../../etc/hostname"


def _loop_body(model: onnx.ModelProto) -> onnx.GraphProto:
    graph: onnx.GraphProto = model.graph.node[3].attribute[0].g
    return graph


def test_models_as_the_export_makes_them_are_taken() -> None:
    refuse_unsafe(example("onnx").model)
    refuse_unsafe(hanging()[0])


@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph", "list"])
def test_data_outside_of_the_file_is_refused(where: str) -> None:
    model = _model()
    if where == "initializer":
        _external(model.graph.initializer[0])
    elif where == "subgraph":
        _external(_loop_body(model).initializer[0])
    else:
        node = model.graph.node.add(op_type="Constant", output=["c"])
        attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        _external(attribute.t if where == "constant" else attribute.tensors.add())
    with pytest.raises(ModelError, match="outside of its file"):
        refuse_unsafe(model.SerializeToString())


@pytest.mark.parametrize("where", ["opset", "node", "subgraph", "function", "graph list"])
def test_operator_of_a_foreign_set_is_refused(where: str) -> None:
    model = _model()
    if where == "opset":
        model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    elif where == "node":
        model.graph.node[0].domain = "evil.ops"
    elif where == "subgraph":
        _loop_body(model).node[0].domain = "evil.ops"
    elif where == "graph list":
        attribute = model.graph.node[0].attribute.add(name="g", type=onnx.AttributeProto.GRAPHS)
        attribute.graphs.add().node.add(op_type="X", domain="evil.ops")
    else:
        function = model.functions.add(name="f", domain="")
        function.node.add(op_type="X", domain="evil.ops")
    with pytest.raises(ModelError, match=r"evil\.ops"):
        refuse_unsafe(model.SerializeToString())


def test_domain_given_twice_is_judged_by_both() -> None:
    domain, other = b"", b"evil.ops"
    node = b"".join(bytes([7 << 3 | 2, len(text)]) + text for text in (domain, other))
    graph = bytes([1 << 3 | 2, len(node)]) + node
    with pytest.raises(ModelError, match=r"evil\.ops"):
        refuse_unsafe(bytes([7 << 3 | 2, len(graph)]) + graph)


def test_graphs_nested_without_end_are_refused() -> None:
    model = b""
    for _ in range(200):
        attribute = _field(6, model)
        model = _field(1, _field(5, attribute))
    with pytest.raises(ModelError, match="nested"):
        refuse_unsafe(_field(7, model))


def test_engine_of_another_format_is_refused_before_the_engine_sees_it() -> None:
    case = example("onnx")
    with pytest.raises(ModelError, match="not an ONNX file"):
        open_session("onnx", b"\x18\x00\x00\x00ORTM" + bytes(200), case.spec)


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_taken_or_refused_in_words(data: bytes) -> None:
    _taken_or_refused(data)


@given(st.data())
@settings(max_examples=300)
def test_any_change_to_a_model_is_taken_or_refused_in_words(data: st.DataObject) -> None:
    model = bytearray(example("onnx").model)
    for _ in range(data.draw(st.integers(1, 4))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    _taken_or_refused(bytes(model))


@given(st.integers(0, 10_000))
@settings(max_examples=100)
def test_model_cut_short_inside_its_graph_is_refused(cut: int) -> None:
    whole = example("onnx").model
    until_graph = onnx.load_from_string(whole)
    for later_field in ("opset_import", "metadata_props", "functions"):
        until_graph.ClearField(later_field)
    graph_ends_at = len(until_graph.SerializeToString(deterministic=True))
    with pytest.raises(ModelError):
        refuse_unsafe(whole[: cut % graph_ends_at])


def _taken_or_refused(data: bytes) -> None:
    try:
        refuse_unsafe(data)
    except ModelError as error:
        assert str(error)


def _field(number: int, content: bytes) -> bytes:
    size, digits = len(content), b""
    while size >= 0x80:
        digits += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + digits + bytes([size]) + content
