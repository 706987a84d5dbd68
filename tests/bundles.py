"""Builds small real bundles for tests: a network of four nodes that judges a picture by its brightness.

A bright picture is `good`, a dark one `scratch`, one in between unsure. Variants break in the ways that bundles break.
"""

import hashlib
import io
import json
import zipfile
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import Bundle, parse
from edge.wire.manifest import GOOD_LABEL

SIDE = 16
LABELS = [GOOD_LABEL, "scratch"]
SLOPE = 16.0
"""Logit per unit of brightness around one half, each way."""

Kind = Literal[
    "brightness", "inverted", "nan_on_black", "crashing_on_black", "hanging_on_black", "wrong_golden", "hoarding"
]
HOARDS_ABOVE = 240
"""Brightness above which a hoarding network takes memory for good, `HOARDED_BYTES` for each unit more."""
HOARDED_BYTES = 16 * 2**20


def bundle_bytes(
    version: str = "1.0.0", *, name: str = "brightness", kind: Kind = "brightness", note: str = "", **changes: Any
) -> bytes:
    """Return the bytes of a bundle; `changes` replace parts of its manifest."""
    model = _model(kind)
    inputs = np.stack([_flat(value) for value in (20, 128, 235)])
    outputs = logits(inputs, inverted=kind == "inverted")
    if kind == "wrong_golden":
        outputs = outputs + 1.0
    files = {"model.onnx": model, "inputs.npy": _npy(inputs), "outputs.npy": _npy(outputs)}
    manifest: dict[str, Any] = {
        "format": 1,
        "name": name,
        "version": version,
        "task": "inspect",
        "description": note,
        "created_at": "2026-01-01T00:00:00Z",
        "input": {"kind": "image", "width": SIDE, "height": SIDE, "color": "rgb", "min_side": 4},
        "labels": LABELS,
        "models": {"onnx": _model_entry()},
        "prefer": "onnx",
        "policy": {"kind": "inspect", "pass_max": 0.05, "divert_min": 0.95},
        "golden": {"inputs": "inputs.npy", "outputs": {"onnx": "outputs.npy"}, "count": len(inputs)},
        "files": {
            name: {"digest": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in files.items()
        },
        **changes,
    }
    return archive({**files, "manifest.json": json.dumps(manifest).encode()})


def bundle(version: str = "1.0.0", **changes: Any) -> Bundle:
    """Return a small bundle, opened."""
    return parse(bundle_bytes(version, **changes))


def logits(pictures: NDArray[np.uint8], *, inverted: bool = False) -> NDArray[np.float32]:
    """Return what the network gives for (n, side, side, 3) uint8."""
    brightness = pictures.astype(np.float32).mean(axis=(1, 2, 3)) / 255 - 0.5
    good = SLOPE * (-brightness if inverted else brightness)
    return np.stack([good, -good], axis=1).astype(np.float32)


def archive(members: dict[str, bytes]) -> bytes:
    """Return a ZIP archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in members.items():
            target.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), data)
    return stream.getvalue()


def _model(kind: Kind) -> bytes:
    sign = -1.0 if kind == "inverted" else 1.0
    third = sign * SLOPE / 3 / 255
    weight = np.array([[third, -third]] * 3, np.float32)
    bias = np.array([-sign * SLOPE / 2, sign * SLOPE / 2], np.float32)
    zeros = numpy_helper.from_array(np.zeros((3, 2), np.float32), "zeros")
    nodes = [
        helper.make_node("Cast", ["picture"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["mean", "weight", "bias"], ["plain"]),
    ]
    if kind == "nan_on_black":
        # Zero times the logarithm of the brightness: nothing, except on black, where it is not a number.
        nodes += [
            helper.make_node("Log", ["mean"], ["log"]),
            helper.make_node("Gemm", ["log", "zeros"], ["nothing"]),
            helper.make_node("Add", ["plain", "nothing"], ["logits"]),
        ]
    elif kind == "crashing_on_black":
        nodes += _crash()
    elif kind == "hanging_on_black":
        nodes += _hang()
    elif kind == "hoarding":
        nodes += _hoard()
    else:
        nodes.append(helper.make_node("Identity", ["plain"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, [1, SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
            zeros,
            numpy_helper.from_array(np.array([HOARDS_ABOVE], np.float32), "limit"),
            numpy_helper.from_array(np.array([HOARDED_BYTES / 4], np.float32), "numbers"),
            numpy_helper.from_array(np.array(0, np.int64), "none"),
            numpy_helper.from_array(np.array(1, np.int64), "one"),
            numpy_helper.from_array(np.array(-1, np.int64), "minus_one"),
            numpy_helper.from_array(np.array(-(2**63), np.int64), "least"),
            numpy_helper.from_array(np.array(2**50, np.int64), "years"),
            numpy_helper.from_array(np.array(True), "go"),
            numpy_helper.from_array(np.zeros((1, 2), np.float32), "start"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _crash() -> list[onnx.NodeProto]:
    """Return nodes that divide the least whole number by 1, on black by -1: the processor traps, the process dies."""
    return [
        *_brightest(),
        helper.make_node("Equal", ["brightest", "none"], ["black"]),
        helper.make_node("Where", ["black", "minus_one", "one"], ["divisor"]),
        helper.make_node("Div", ["least", "divisor"], ["far"]),
        helper.make_node("Mul", ["far", "none"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["nothing"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["plain", "nothing"], ["logits"]),
    ]


def _hang() -> list[onnx.NodeProto]:
    """Return nodes that do nothing, on black for years."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go_out"]),
            helper.make_node("Add", ["sum_in", "sum_in"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, [1, 2]),
        ],
        [
            helper.make_tensor_value_info("go_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [1, 2]),
        ],
    )
    return [
        *_brightest(),
        helper.make_node("Equal", ["brightest", "none"], ["black"]),
        helper.make_node("Where", ["black", "years", "none"], ["turns"]),
        helper.make_node("Loop", ["turns", "go", "start"], ["nothing"], body=body),
        helper.make_node("Add", ["plain", "nothing"], ["logits"]),
    ]


def _brightest() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["picture"], ["whole"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["whole"], ["brightest"], keepdims=0),
    ]


def _hoard() -> list[onnx.NodeProto]:
    """Return nodes that fill a tensor as large as the picture is bright: the engine's arena keeps what it once took."""
    one = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    return [
        helper.make_node("ReduceMean", ["mean"], ["average"], axes=[0, 1], keepdims=0),
        helper.make_node("Sub", ["average", "limit"], ["above"]),
        helper.make_node("Relu", ["above"], ["units"]),
        helper.make_node("Mul", ["units", "numbers"], ["count"]),
        helper.make_node("Cast", ["count"], ["size"], to=TensorProto.INT64),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceSum", ["ones"], ["sum"], keepdims=0),
        helper.make_node("Sub", ["sum", "sum"], ["nothing"]),
        helper.make_node("Add", ["plain", "nothing"], ["logits"]),
    ]


def _model_entry() -> dict[str, Any]:
    return {
        "file": "model.onnx",
        "runtime": "onnx",
        "precision": "float32",
        "input": {"name": "picture", "shape": [1, SIDE, SIDE, 3], "dtype": "uint8"},
        "output": {"name": "logits", "shape": [1, 2], "dtype": "float32"},
        "golden_tolerance": 1e-3,
    }


def _flat(value: int) -> NDArray[np.uint8]:
    return np.full((SIDE, SIDE, 3), value, np.uint8)


def _npy(values: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()
