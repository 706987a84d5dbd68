"""What quantization costs, and what happens when it costs too much: on networks made to be hurt by it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from edge.bundle import load
from edge.engines import EngineSettings, open_engine
from edge.errors import ModelError
from export import shipping
from export.build import build_bundle
from export.quantize import layers, quantize, to_network
from export.recipe import BuildData, Labelled
from export.run import OnnxRunner
from export.sensitivity import groups, ranked
from export.shipping import lost, ship
from tests.export.networks import model_of, spot_network
from tests.export.test_build import data, recipe


def rough_network() -> onnx.ModelProto:
    """Two channels side by side: brightness, blown up four hundred times and then not used, and the one that counts.

    One scale serves both, so in 8 bits the one that counts is lost between `stem` and `mix`.
    """
    stem = np.zeros((2, 3, 1, 1), np.float32)
    stem[0], stem[1, 0], stem[1, 1] = 400 / 3, 1.0, -1.0
    mix = np.zeros((2, 2, 1, 1), np.float32)
    mix[0, 1], mix[1, 1] = 3.0, -3.0
    head = np.array([[2.0, -2.0], [-2.0, 2.0]], np.float32)
    last = np.eye(2, dtype=np.float32)
    weights = {"w1": stem, "w2": mix, "w3": head, "w4": last, "zeros": np.zeros(2, np.float32)}
    nodes = [
        _node("Conv", ["input", "w1"], "stem", kernel_shape=[1, 1]),
        _node("Conv", ["stem", "w2"], "mix", kernel_shape=[1, 1]),
        _node("GlobalAveragePool", ["mix"], "mean"),
        _node("Flatten", ["mean"], "flat"),
        _node("Gemm", ["flat", "w3", "zeros"], "head", transB=1),
        _node("Gemm", ["head", "w4", "zeros"], "logits", transB=1),
    ]
    return model_of(nodes, weights, (1, 3, 8, 8), (1, 2))


def hopeless_network() -> onnx.ModelProto:
    """The same loss six times over: leaving two groups float does not mend it."""
    nodes, last = [], "input"
    weights: dict[str, NDArray[np.float32]] = {"zeros": np.zeros(2, np.float32)}
    for index in range(8):
        inputs = 3 if not index else 2
        weight = np.zeros((2, inputs, 1, 1), np.float32)
        if index % 2 == 0:
            weight[0], weight[1, 0], weight[1, 1] = 400 / inputs, 1.0, -1.0 if not index else 0.0
        else:
            weight[0, 1], weight[1, 0] = 1.0, 0.0025
        weights[f"w{index}"] = weight
        nodes.append(_node("Conv", [last, f"w{index}"], f"layer{index}", kernel_shape=[1, 1]))
        last = f"layer{index}"
    weights["head"] = np.array([[4.0, 0.0], [-4.0, 0.0]], np.float32)
    nodes += [_node("GlobalAveragePool", [last], "mean"), _node("Flatten", ["mean"], "flat")]
    nodes.append(_node("Gemm", ["flat", "head", "zeros"], "logits", transB=1))
    return model_of(nodes, weights, (1, 3, 8, 8), (1, 2))


def pictures(network: onnx.ModelProto, count: int, seed: int) -> Labelled:
    """Flat pictures whose red and green differ by little, labelled by the float network."""
    rng = np.random.default_rng(seed)
    values = np.repeat(rng.integers(0, 256, (count, 1, 1, 3)), 64, axis=1).reshape(count, 8, 8, 3)
    values[..., 1] = np.clip(values[..., 0] + rng.integers(-9, 10, (count, 1, 1)), 0, 255)
    values = values.astype(np.uint8)
    labels = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None]).argmax(1)
    return Labelled(values, labels.astype(np.intp), np.arange(count))


def rough_data(network: onnx.ModelProto) -> BuildData:
    heldout, pilot = pictures(network, 500, 1), pictures(network, 200, 2)
    reference = [np.full((32, 32, 3), value, np.uint8) for value in (90, 120, 150)]
    ranges = pictures(network, 64, 3).values
    return BuildData(quantize=ranges, heldout=heldout, reference=reference, pilot=pilot)


def _node(kind: str, inputs: list[str], output: str, **given: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], name=output, **given)  # type: ignore[arg-type]


def test_network_that_loses_nothing_is_wholly_int8_and_says_so() -> None:
    given = data()
    with_pilot = replace(
        given, pilot=given.heldout.take(np.arange(300)), heldout=given.heldout.take(np.arange(300, 900))
    )
    shipped, figures = ship(recipe(), spot_network(), with_pilot)
    assert set(shipped) == {"onnx", "tflite"}
    assert set(figures["ranges_tried"]) == {"minmax", "percentile", "entropy"}
    assert figures["lost"] <= 0.005
    assert figures["low"] <= figures["lost"] <= figures["high"]
    assert "kept_float" not in figures


def test_layers_that_lose_too_much_stay_float_and_the_figures_name_them(tmp_path: Path) -> None:
    network = rough_network()
    given = rough_data(network)
    spoiled = quantize(network, given.quantize)
    answers = OnnxRunner(spoiled.shipped).logits(given.heldout.values[:, None])
    assert np.mean(answers.argmax(1) == given.heldout.labels) < 0.95, "it must be spoiled, or nothing is tested"
    spec = recipe().input.model_copy(update={"width": 8, "height": 8})
    built = build_bundle(replace(recipe(), input=spec, prefer="tflite"), network, given, tmp_path / "rough.lsb")
    figures = built.figures["quantization"]
    assert figures["kept_float"] == ["stem"]
    assert figures["lost"] <= 0.005
    assert figures["onnx_only"].startswith("layers stayed float: ")
    opened = load(built.path)
    assert (set(opened.manifest.models), opened.manifest.prefer) == ({"onnx"}, "onnx")
    open_engine(opened, EngineSettings(isolation="inline")).session.close()


def test_network_that_cannot_be_mended_is_refused_with_its_worst_layers() -> None:
    network = hopeless_network()
    with pytest.raises(ModelError, match=r"int8 loses .*% of accuracy .* kept float: layer\d"):
        ship(recipe(), network, rough_data(network))


def test_most_sensitive_group_is_the_one_that_was_made_to_be() -> None:
    network = rough_network()
    given = rough_data(network)
    assert given.pilot is not None
    exact = OnnxRunner(network.SerializeToString()).logits(to_network(given.pilot.values)[:, None])
    order = ranked(network, given.quantize, given.pilot.values, exact, "minmax")
    assert (order[0].layer, order[0].nodes) == ("stem", ("stem", "mix"))
    assert order[0].gain > 0.9
    assert all(group.gain < 0.2 for group in order if group.layer in ("head", "logits"))


def test_group_is_a_layer_with_all_that_takes_its_answer() -> None:
    found = groups(spot_network())
    assert set(found) == set(layers(spot_network())) == {"conv_stem", "conv_deep", "gemm_logits"}
    assert {"conv_stem", "conv_deep", "gemm_logits"} <= set(found["conv_stem"]), "the sum is taken by both"


def test_loss_is_right_of_float_less_right_of_int8() -> None:
    labels = np.zeros(200, np.intp)
    exact = np.tile(np.array([1.0, 0.0], np.float32), (200, 1))
    coarse = exact.copy()
    coarse[:3] = [0.0, 1.0]
    found = lost(exact, coarse, labels, None)
    assert found.lost == pytest.approx(0.015)
    assert (found.examples, found.too_much) == (3, True)
    assert found.low < 0.015 < found.high


def test_loss_of_one_example_is_none_that_can_be_measured() -> None:
    exact = np.tile(np.array([1.0, 0.0], np.float32), (60, 1))
    coarse = exact.copy()
    coarse[0] = [0.0, 1.0]
    assert not lost(exact, coarse, np.zeros(60, np.intp), None).too_much


def test_interval_of_the_loss_goes_by_group() -> None:
    exact = np.tile(np.array([1.0, 0.0], np.float32), (1000, 1))
    coarse, part = exact.copy(), np.arange(1000) // 100
    coarse[part == 3] = [0.0, 1.0]  # one part of ten, photographed a hundred times
    alone, together = (lost(exact, coarse, np.zeros(1000, np.intp), groups) for groups in (None, part))
    assert alone.lost == together.lost == pytest.approx(0.1)
    assert together.high - together.low > 5 * (alone.high - alone.low)
    still = lost(exact, exact, np.zeros(1000, np.intp), part)
    assert (still.low, still.high) == (-0.3, 0.3), "nothing changed in ten parts: the rule of three"


def test_large_network_is_not_put_through_histograms_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "_HISTOGRAM_NUMBERS", 1000)
    given = data()
    with_pilot = replace(
        given, pilot=given.heldout.take(np.arange(300)), heldout=given.heldout.take(np.arange(300, 900))
    )
    _, figures = ship(recipe(), spot_network(), with_pilot)
    assert set(figures["ranges_tried"]) == {"minmax"}


def test_first_layer_that_stays_float_gets_the_same_bytes() -> None:
    network = spot_network()
    values: NDArray[np.uint8] = data().quantize
    names = [name for nodes in groups(network).values() for name in nodes]
    kept = quantize(network, values, keep_float=names)
    exact = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None])
    np.testing.assert_allclose(OnnxRunner(kept.shipped).logits(values[:, None]), exact, atol=1e-4)


def test_part_of_the_network_that_is_named_stays_float() -> None:
    """A network that takes the logarithm of its picture first, which eight bits would round most where it is dark."""
    weights = {
        "half": np.array(128.0, np.float32),
        "little": np.array(129.0, np.float32),
        "w1": np.array([[1.0], [-1.0]], np.float32).reshape(2, 1, 1, 1),
        "w2": np.eye(2, dtype=np.float32),
        "zeros": np.zeros(2, np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["input", "half"], ["shades"], name="/inner/prepare/Mul"),
        helper.make_node("Add", ["shades", "little"], ["positive"], name="/inner/prepare/Add"),
        helper.make_node("Log", ["positive"], ["log"], name="/inner/prepare/Log"),
        _node("Conv", ["log", "w1"], "stem", kernel_shape=[1, 1]),
        _node("GlobalAveragePool", ["stem"], "mean"),
        _node("Flatten", ["mean"], "flat"),
        _node("Gemm", ["flat", "w2", "zeros"], "logits", transB=1),
    ]
    network = model_of(nodes, weights, (1, 1, 8, 8), (1, 2))
    values = np.random.default_rng(0).integers(0, 256, (64, 1, 1, 1)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    made = quantize(network, values, keep_float=["/prepare/"])
    graph = onnx.load_from_string(made.shipped).graph
    maker = {name: node for node in graph.node for name in node.output}
    log = next(node for node in graph.node if node.op_type == "Log")
    added = maker[log.input[0]]
    assert (added.op_type, maker[added.input[0]].op_type) == ("Add", "Mul"), "nothing is rounded in between"
    exact = OnnxRunner(network.SerializeToString()).logits(to_network(values)[:, None])
    np.testing.assert_allclose(OnnxRunner(made.shipped).logits(values[:, None]), exact, atol=0.06)


def test_layers_that_a_recipe_names_are_float_from_the_start() -> None:
    network = rough_network()
    given = rough_data(network)
    spec = recipe().input.model_copy(update={"width": 8, "height": 8})
    shipped, figures = ship(replace(recipe(), input=spec, keep_float=("stem", "mix")), network, given)
    assert figures["kept_float"] == ["stem", "mix"]
    assert "sensitivity" not in figures, "nothing was lost, so nothing was searched for"
    assert set(shipped) == {"onnx"}


def test_ranges_that_a_recipe_has_measured_are_not_chosen_again() -> None:
    given = data()
    with_pilot = replace(
        given, pilot=given.heldout.take(np.arange(300)), heldout=given.heldout.take(np.arange(300, 900))
    )
    _, figures = ship(replace(recipe(), ranges="entropy"), spot_network(), with_pilot)
    assert (figures["ranges"], figures["ranges_tried"]) == ("entropy", {})
