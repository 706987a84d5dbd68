"""A quantized network gives one result on every processor: sums of products are not cut off at 16 bits."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import load
from edge.runtimes import open_session
from edge.runtimes.onnx import _load

ROOT = Path(__file__).parents[2]
DEPTH = 64


def test_sums_of_the_largest_products_are_exact() -> None:
    weights = numpy_helper.from_array(np.full((DEPTH, 16), 127, np.int8), "w")
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, DEPTH])
    wanted = helper.make_tensor_value_info("y", TensorProto.INT32, [1, 16])
    graph = helper.make_graph([node], "sums", [given], [wanted], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = _load(model.SerializeToString(), 1)
    (sums,) = session.run(None, {"x": np.full((1, DEPTH), 255, np.uint8)})
    assert set(sums.ravel()) == {DEPTH * 255 * 127}


def test_reference_bundle_gives_its_golden_outputs_on_this_processor() -> None:
    bundle = load(ROOT / "models/phone_glass/phone_glass-1.0.0.lsb")
    spec, model = bundle.model("onnx")
    session = open_session("onnx", model, spec)
    inputs, outputs = bundle.golden("onnx")
    worst = max(float(np.abs(session.infer(x[None])[: y.size] - y).max()) for x, y in zip(inputs, outputs, strict=True))
    session.close()
    assert worst <= bundle.manifest.models["onnx"].golden_tolerance / 10
