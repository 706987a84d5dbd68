"""Features and heat maps: from one quantized graph into both formats, through both isolations, into the bundle."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge.bundle import Bundle, load
from edge.commands.infer import run
from edge.engines import replay_golden
from edge.errors import ModelError, UpdateError
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.runtimes.isolated import IsolatedSession
from edge.wire.manifest import ModelFile
from export import golden
from export.build import BuildReport, build_bundle
from export.pack import pack
from export.quantize import quantize, to_network
from export.tflite import write_tflite
from tests.export.extras import CHANNELS, COLUMNS, ROWS, extras_network
from tests.export.networks import spot_pictures
from tests.export.test_build import data, recipe

RUNTIMES = ("onnx", "tflite")


def files(network: onnx.ModelProto) -> dict[str, tuple[bytes, ModelFile]]:
    quantized = quantize(network, spot_pictures(64, seed=2)[0])
    return {"onnx": (quantized.shipped, quantized.spec), "tflite": write_tflite(quantized)}


def by_float(network: onnx.ModelProto, pictures: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in network.graph.output]
    rows = [session.run(names, {"input": to_network(picture[None])}) for picture in pictures]
    return {name: np.concatenate([row[index] for row in rows]) for index, name in enumerate(names)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return build_bundle(recipe(), extras_network(), data(), tmp_path_factory.mktemp("extras") / "spot-1.0.0.lsb")


@pytest.mark.parametrize("heatmap", ["Squeeze", "Gather", "Reshape"])
def test_both_formats_give_logits_features_and_heat_map_of_the_float_network(heatmap: str) -> None:
    network, pictures = extras_network(heatmap), spot_pictures(40, seed=7)[0]
    exact = by_float(network, pictures)
    for content, spec in files(network).values():
        assert spec.features is not None and spec.features.shape == [1, CHANNELS]
        assert spec.heatmap is not None and spec.heatmap.shape == [1, ROWS, COLUMNS]
        got = golden.split(golden.answers(content, spec, pictures), spec)
        assert got.features is not None and got.heatmap is not None
        for one, other in ((got.logits, "logits"), (got.features, "features"), (got.heatmap, "heatmap")):
            assert one.shape == exact[other].shape
            assert np.abs(one - exact[other]).max() <= 0.03 * np.ptp(exact[other])


def test_heat_map_lies_row_by_row_as_the_picture_does() -> None:
    picture = np.full((1, 24, 32, 3), 80, np.uint8)
    picture[0, 4:8, 20:26] = 250
    for content, spec in files(extras_network()).values():
        found = golden.split(golden.answers(content, spec, picture), spec).heatmap
        assert found is not None
        row, column = divmod(int(found[0].argmax()), COLUMNS)
        assert 2 <= row <= 4 and 10 <= column <= 13


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_both_isolations_give_the_same_numbers(runtime: str) -> None:
    content, spec = files(extras_network())[runtime]
    pictures = [to_model(picture[None], spec.input) for picture in spot_pictures(5, seed=8)[0]]
    answers = []
    for session in (
        open_session(runtime, content, spec),
        IsolatedSession(runtime, content, spec, deadline_s=5, start_timeout_s=20),
    ):
        answers.append(np.stack([session.infer(picture) for picture in pictures]))
        session.close()
    assert answers[0].shape == (5, 2 + CHANNELS + ROWS * COLUMNS)
    assert answers[0].dtype == np.float32
    np.testing.assert_array_equal(answers[0], answers[1])


def test_outputs_may_be_declared_in_any_order_and_left_out() -> None:
    pictures = spot_pictures(4, seed=9)[0]
    whole = golden.answers(*files(extras_network())["onnx"], pictures)
    content, spec = files(extras_network(names=("features", "logits")))["onnx"]
    assert spec.heatmap is None
    np.testing.assert_array_equal(golden.answers(content, spec, pictures), whole[:, : 2 + CHANNELS])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda spec: spec.model_copy(update={"heatmap": None}), "expected one input and two outputs, got 1 and 3"),
        (
            lambda spec: spec.model_copy(update={"features": spec.features.model_copy(update={"shape": [1, 9]})}),
            "expected .* shape \\[1, 9\\]; got .* shape \\[1, 8\\]",
        ),
    ],
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_other_than_declared_are_refused(
    runtime: str, change: Callable[[ModelFile], ModelFile], words: str
) -> None:
    content, spec = files(extras_network())[runtime]
    with pytest.raises(ModelError, match=words):
        open_session(runtime, content, change(spec))


def test_output_with_another_name_is_refused_at_export() -> None:
    network = extras_network()
    network.graph.output[0].name = "spots"
    with pytest.raises(ModelError, match="outputs named logits, features, heatmap, got spots, logits, features"):
        quantize(network, spot_pictures(4, seed=1)[0])


def test_bundle_records_golden_extras_and_replays_them(built: BuildReport) -> None:
    opened = load(built.path)
    for runtime in RUNTIMES:
        spec, content = opened.model(runtime)
        assert opened.golden_extras(runtime) is not None
        session = open_session(runtime, content, spec)
        assert replay_golden(opened, runtime, spec, session) == 0.0
        session.close()


@pytest.mark.parametrize(("column", "words"), [(0, "golden features differs"), (CHANNELS, "golden heat map differs")])
def test_extras_that_differ_from_the_golden_ones_are_refused(built: BuildReport, column: int, words: str) -> None:
    opened = load(built.path)
    spec, content = opened.model("onnx")
    recorded = opened.golden_extras("onnx")
    assert recorded is not None
    recorded[1, column] += 10.0
    name = opened.manifest.golden.extras["onnx"]
    other: Bundle = replace(opened, files={**opened.files, name: golden.as_npy(recorded)})
    session = open_session("onnx", content, spec)
    with pytest.raises(UpdateError, match=words):
        replay_golden(other, "onnx", spec, session)
    session.close()


def test_golden_extras_of_another_size_are_a_model_error(built: BuildReport) -> None:
    opened = load(built.path)
    name = opened.manifest.golden.extras["onnx"]
    other = replace(opened, files={**opened.files, name: golden.as_npy(np.zeros((6, 3), np.float32))})
    with pytest.raises(ModelError, match="golden extras: expected finite numbers"):
        other.golden_extras("onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_decision_that_is_no_clear_pass_says_where_the_network_looked(
    built: BuildReport, tmp_path: Path, runtime: str
) -> None:
    bad = np.full((240, 320, 3), 80, np.uint8)
    bad[160:200, 60:110] = 250
    good = spot_pictures(40, seed=4)[0][spot_pictures(40, seed=4)[1] == 0][0]
    for name, picture in (("a_bad", bad), ("b_good", cv2.resize(good, (320, 240)))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    opened = load(built.path)
    loose = opened.manifest.model_copy(update={"gate": {}, "out_of_distribution": None})
    path = tmp_path / "loose.lsb"
    path.write_bytes(pack(loose, opened.files))
    out = io.StringIO()
    run(path, [str(tmp_path / "*.png")], runtime=runtime, as_json=True, out=out)
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first["verdict"] in ("divert", "defer")
    assert first["where"][0]["x"] == pytest.approx(85 / 320, abs=0.06)
    assert first["where"][0]["y"] == pytest.approx(180 / 240, abs=0.08)
    assert (second["verdict"], second["where"]) == ("pass", None)


@pytest.mark.torch
def test_torch_module_that_gives_a_dict_becomes_a_network_with_named_outputs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from export.onnx_export import float_onnx

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 4, 3, 2, 1)
            self.spots = torch.nn.Conv2d(4, 1, 1)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, values: Any) -> dict[str, Any]:
            maps = torch.relu(self.stem(values))
            features = torch.flatten(torch.nn.functional.adaptive_avg_pool2d(maps, 1), 1)
            return {"heatmap": self.spots(maps), "logits": self.head(features), "features": features}

    torch.manual_seed(1)
    network = float_onnx(Net(), (3, 24, 32))
    assert [output.name for output in network.graph.output] == ["logits", "features", "heatmap"]
    pictures = spot_pictures(10, seed=3)[0]
    exact = by_float(network, pictures)
    for content, spec in files(network).values():
        got = golden.answers(content, spec, pictures)
        flat = np.concatenate([exact[name].reshape(10, -1) for name in ("logits", "features", "heatmap")], 1)
        assert np.abs(got - flat).max() <= 0.05 * np.ptp(flat)
