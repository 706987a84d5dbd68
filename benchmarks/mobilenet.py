"""A MobileNetV2 at 224×224 with random weights, int8, as a bundle: what the time benchmarks run.

Rules:
- Built from a seed without a training framework; latency does not depend on the weights.
- The architecture is that of Sandler et al. 2018, width 1.0, batch normalisation folded away: 301 million MACs.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge.wire.base import BundleRef
from edge.wire.manifest import Golden, ImageInput, InspectPolicy, Limits, Manifest
from export import golden, pack
from export.quantize import quantize

SIDE = 224
LABELS = ["good", *(f"defect_{n}" for n in range(1, 10))]
BLOCKS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
"""Expansion, channels, repeats, stride."""
CALIBRATION_PICTURES = 8
SEED = 7


class _Builder:
    """Adds layers to a graph, one tensor after another."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = rng
        self._count = 0

    def conv(self, x: str, inner: int, outer: int, *, kernel: int = 1, stride: int = 1, groups: int = 1) -> str:
        fan_in = inner // groups * kernel * kernel
        weight = self._rng.normal(0, np.sqrt(2 / fan_in), (outer, inner // groups, kernel, kernel))
        name = self._name("conv")
        inputs = [x, self._weight(weight), self._weight(np.zeros(outer))]
        pad = kernel // 2
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [name],
                name=name,
                kernel_shape=[kernel] * 2,
                strides=[stride] * 2,
                pads=[pad] * 4,
                group=groups,
            )
        )
        return name

    def relu6(self, x: str) -> str:
        name = self._name("relu6")
        limits = [self._weight(np.array(value)) for value in (0.0, 6.0)]
        self.nodes.append(helper.make_node("Clip", [x, *limits], [name], name=name))
        return name

    def add(self, x: str, y: str) -> str:
        name = self._name("add")
        self.nodes.append(helper.make_node("Add", [x, y], [name], name=name))
        return name

    def head(self, x: str, inner: int, outer: int) -> None:
        self.nodes.append(helper.make_node("GlobalAveragePool", [x], ["pooled"], name="pool"))
        self.nodes.append(helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"))
        weight = self._weight(self._rng.normal(0, np.sqrt(1 / inner), (outer, inner)))
        inputs = ["features", weight, self._weight(np.zeros(outer))]
        self.nodes.append(helper.make_node("Gemm", inputs, ["logits"], name="head", transB=1))

    def _weight(self, values: NDArray[np.float64]) -> str:
        name = self._name("weight")
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{what}_{self._count}"


def float_network() -> onnx.ModelProto:
    """Return the float network: input (1, 3, 224, 224), logits (1, 10)."""
    build = _Builder(np.random.default_rng(SEED))
    x = build.relu6(build.conv("input", 3, 32, kernel=3, stride=2))
    channels = 32
    for expansion, outer, repeats, stride in BLOCKS:
        for repeat in range(repeats):
            x = _inverted_residual(build, x, channels, outer, stride if repeat == 0 else 1, expansion)
            channels = outer
    build.head(build.relu6(build.conv(x, channels, 1280)), 1280, len(LABELS))
    graph = helper.make_graph(
        build.nodes,
        "mobilenet_v2",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, len(LABELS)])],
        build.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def write_bundle(path: Path) -> BundleRef:
    """Write the int8 network as a bundle; its thresholds never defer, so that every window goes the whole way."""
    rng = np.random.default_rng(SEED)
    values = rng.integers(0, 256, (CALIBRATION_PICTURES, SIDE, SIDE, 3), dtype=np.uint8)
    quantized = quantize(float_network(), values)
    inputs = values[:2]
    files = {
        quantized.spec.file: quantized.shipped,
        "inputs.npy": golden.as_npy(inputs),
        "outputs.npy": golden.as_npy(golden.outputs(quantized.shipped, quantized.spec, inputs)),
    }
    manifest = Manifest(
        name="mobilenet_224",
        version="1.0.0",
        task="inspect",
        description="MobileNetV2 1.0 at 224×224 with random weights, for measuring time",
        created_at="2026-01-01T00:00:00Z",
        input=ImageInput(width=SIDE, height=SIDE),
        labels=LABELS,
        models={"onnx": quantized.spec},
        policy=InspectPolicy(pass_max=0.5, divert_min=0.5),
        gate={"brightness": Limits(min=0.01, max=0.99)},
        golden=Golden(inputs="inputs.npy", outputs={"onnx": "outputs.npy"}, count=len(inputs)),
        files=pack.file_entries(files),
    )
    return pack.write(manifest, files, path)


def _inverted_residual(build: _Builder, x: str, inner: int, outer: int, stride: int, expansion: int) -> str:
    hidden = inner * expansion
    y = build.relu6(build.conv(x, inner, hidden)) if expansion != 1 else x
    y = build.relu6(build.conv(y, hidden, hidden, kernel=3, stride=stride, groups=hidden))
    y = build.conv(y, hidden, outer)
    return build.add(x, y) if stride == 1 and inner == outer else y
