"""Build, end to end, on networks made by hand: from float ONNX to a bundle that a device's own code accepts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edge.bundle import load
from edge.engines import replay_golden
from edge.errors import ModelError
from edge.runtimes import open_session
from edge.values import Window
from edge.wire.manifest import AudioInput, ImageInput, Manifest
from export.audit import inspection_figures, judgements
from export.build import BuildReport, build_bundle, bundle_files
from export.onnx_export import stripped
from export.quantize import quantize, to_network
from export.recipe import BuildData, Labelled, Recipe, split_by_group
from export.run import OnnxRunner
from export.tflite import write_tflite
from tests.export.networks import model_of, sound_network, spot_network, spot_pictures

SPEC = ImageInput(width=32, height=24)


def recipe(version: str = "1.0.0") -> Recipe:
    return Recipe(
        name="spot",
        version=version,
        task="inspect",
        input=SPEC,
        labels=["good", "bad"],
        created_at="2026-01-01T00:00:00Z",
        unit="part",
        lineage={"seed": 1},
    )


def data() -> BuildData:
    values, labels = spot_pictures(1200, seed=1)
    ranges, _ = spot_pictures(64, seed=2)
    return BuildData(
        quantize=ranges, heldout=Labelled(values, labels, np.arange(1200) // 2), reference=list(values[:100])
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildReport]:
    yield build_bundle(recipe(), spot_network(), data(), tmp_path_factory.mktemp("build") / "spot-1.0.0.lsb")


def test_built_bundle_replays_its_golden_examples_in_both_engines(built: BuildReport) -> None:
    opened = load(built.path, expected_digest=built.ref.digest)
    assert set(opened.manifest.models) == {"onnx", "tflite"}
    for runtime in opened.manifest.models:
        spec, model = opened.model(runtime)
        session = open_session(runtime, model, spec)
        assert replay_golden(opened, runtime, spec, session) == 0.0
        session.close()


def test_building_twice_gives_the_same_digest(built: BuildReport, tmp_path: Path) -> None:
    again = build_bundle(recipe(), spot_network(), data(), tmp_path / "again.lsb")
    assert again.ref.digest == built.ref.digest


def test_figures_are_those_of_the_shipped_file_on_fresh_pictures(built: BuildReport) -> None:
    opened = load(built.path)
    values, labels = spot_pictures(300, seed=9)
    windows = [
        Window(source="test", name=str(i), key=str(i), media_type="image/png", data=np.ascontiguousarray(v[:, :, ::-1]))
        for i, v in enumerate(values)
    ]
    for runtime in ("onnx", "tflite"):
        made = list(judgements(opened, windows, runtime))
        figures = inspection_figures(made, [opened.manifest.labels[label] for label in labels])
        assert figures["wrong_share"] <= 0.02
        assert figures["automated"] == pytest.approx(built.figures["heldout"]["coverage"], abs=0.08)


def test_report_says_what_quantization_cost(built: BuildReport) -> None:
    found = built.figures["quantization"]
    assert found["agreement"] > 0.98
    assert found["logit_error"] < 0.05
    assert built.figures["parity"]["max_steps"] <= 2
    manifest = load(built.path).manifest
    assert manifest.metrics["export"]["quantization"] == found
    assert manifest.reference["brightness"].total == 100
    assert "confidence" in manifest.reference


def test_manifest_survives_its_own_json(built: BuildReport) -> None:
    manifest = load(built.path).manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_raw_bytes_and_floats_give_the_same_logits() -> None:
    values, _ = spot_pictures(64, seed=3)
    quantized = quantize(spot_network(), values)
    by_floats = OnnxRunner(quantized.qdq.SerializeToString()).logits(to_network(values)[:, None])
    by_bytes = OnnxRunner(quantized.shipped).logits(values[:, None])
    np.testing.assert_array_equal(by_floats, by_bytes)


def test_extreme_bytes_are_exact_even_if_calibration_lacks_them() -> None:
    values, _ = spot_pictures(16, seed=4)
    quantized = quantize(spot_network(), values)
    black, white = np.zeros((1, 24, 32, 3), np.uint8), np.full((1, 24, 32, 3), 255, np.uint8)
    assert quantized.spec.input.scale is None
    for extreme in (black, white):
        by_floats = OnnxRunner(quantized.qdq.SerializeToString()).logits(to_network(extreme)[:, None])
        by_bytes = OnnxRunner(quantized.shipped).logits(extreme[:, None])
        np.testing.assert_array_equal(by_floats, by_bytes)


def test_sound_features_give_a_keyword_bundle_with_quantized_tflite_input(tmp_path: Path) -> None:
    spec = AudioInput(sample_rate_hz=8000, window_s=0.5, mel_bands=16)
    rng = np.random.default_rng(7)
    values = rng.normal(0, 0.6, (500, 30, 16, 1)).astype(np.float32)
    network = sound_network(30, 16)
    labels = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None]).argmax(1).astype(np.intp)
    sounds = [(rng.normal(0, 0.1, 4000).astype(np.float32), 8000) for _ in range(20)]
    built = build_bundle(
        Recipe(
            name="words",
            version="1.0.0",
            task="keyword",
            input=spec,
            labels=["a", "b", "c"],
            created_at="2026-01-01T00:00:00Z",
        ),
        network,
        BuildData(quantize=values[:64], heldout=Labelled(values, labels), reference=sounds),
        tmp_path / "words-1.0.0.lsb",
    )
    opened = load(built.path)
    assert opened.manifest.models["onnx"].input.dtype == "float32"
    assert opened.manifest.models["tflite"].input.scale is not None
    for runtime in ("onnx", "tflite"):
        spec_, model = opened.model(runtime)
        session = open_session(runtime, model, spec_)
        assert replay_golden(opened, runtime, spec_, session) == 0.0


def test_operator_that_tflite_writer_does_not_know_is_named() -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="first"),
        helper.make_node("Sigmoid", ["c"], ["s"], name="odd_one"),
        helper.make_node("GlobalAveragePool", ["s"], ["m"]),
        helper.make_node("Flatten", ["m"], ["logits"]),
    ]
    network = model_of(nodes, {"w": np.ones((2, 3, 1, 1), np.float32)}, (1, 3, 24, 32), (1, 2))
    values, _ = spot_pictures(16, seed=5)
    with pytest.raises(ModelError, match="Sigmoid 'odd_one'"):
        write_tflite(quantize(network, values))


def test_flattening_a_map_is_refused_since_it_would_reorder() -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], strides=[8, 8]),
        helper.make_node("Flatten", ["c"], ["logits"], name="flat"),
    ]
    network = model_of(nodes, {"w": np.ones((2, 3, 1, 1), np.float32)}, (1, 3, 24, 32), (1, 24))
    values, _ = spot_pictures(16, seed=6)
    with pytest.raises(ModelError, match="pool it to 1×1 first"):
        write_tflite(quantize(network, values))


def test_stripped_model_names_no_machine() -> None:
    model = spot_network()
    model.doc_string = "/home/someone"
    model.graph.node[0].metadata_props.append(onnx.StringStringEntryProto(key="trace", value="/home/someone/net.py"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.training", 1))
    clean = stripped(model)
    assert b"/home" not in clean.SerializeToString()
    assert [item.domain for item in clean.opset_import] == [""]
    assert b"/home" in model.SerializeToString(), "the given model stays as it is"


def test_split_keeps_groups_whole() -> None:
    values, labels = spot_pictures(60, seed=8)
    groups = np.arange(60) // 3
    first, rest = split_by_group(Labelled(values, labels, groups), 0.3, seed=1)
    assert first.groups is not None
    assert rest.groups is not None
    assert not set(first.groups) & set(rest.groups)
    assert len(np.unique(first.groups)) == 6
    assert len(first) + len(rest) == 60
    with pytest.raises(ValueError, match="at least 2 independent groups"):
        split_by_group(Labelled(values, labels, np.zeros(60)), 0.3, seed=1)


def test_formats_decide_alike_and_the_report_says_how_often(built: BuildReport) -> None:
    assert built.figures["parity"]["same_decision_share"] >= 0.995


def test_files_that_decide_differently_are_not_shipped_together(tmp_path: Path) -> None:
    values, _ = spot_pictures(64, seed=2)
    quantized = quantize(spot_network(), values)
    other = spot_network()
    bias = next(item for item in other.graph.initializer if item.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(np.array([4.4, -4.4], np.float32), "b3"))
    models = [(quantized.shipped, quantized.spec), write_tflite(quantize(other, values))]
    with pytest.raises(ModelError, match="onnx and tflite decide differently on"):
        bundle_files(recipe(), models, data(), tmp_path / "two.lsb")
