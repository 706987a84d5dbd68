"""What a recipe may add: cross-validated scores, a band for people, golden inputs of its own, constant maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge.bundle import load
from edge.wire.manifest import ImageInput, InspectPolicy
from export import golden, thresholds
from export.build import build_bundle
from export.quantize import quantize
from export.recipe import BuildData, Labelled, Recipe
from export.tflite import write_tflite
from tests.export.networks import spot_network

HEIGHT, WIDTH = 24, 32


def test_thresholds_come_from_the_given_scores_and_the_guarantee_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    labels = rng.integers(0, 2, 400).astype(np.intp)
    values = rng.integers(0, 200, (400, HEIGHT, WIDTH, 3)).astype(np.uint8)
    sure = np.where(labels == 1, 4.0, -4.0) + rng.normal(0, 1, 400)
    scored = Labelled(values, labels, None, np.stack([-sure, sure], 1).astype(np.float32))
    data = BuildData(
        quantize=values[:32],
        heldout=scored,
        reference=[values[0]] * 5,
        golden=np.zeros((2, HEIGHT, WIDTH, 3), np.uint8),
    )
    recipe = Recipe(
        name="spots",
        version="1.0.0",
        task="inspect",
        input=ImageInput(width=WIDTH, height=HEIGHT),
        labels=["good", "bad"],
        created_at="2026-01-01T00:00:00Z",
        alpha_escape=0.05,
        alpha_false_reject=0.05,
        fixed_thresholds=(0.2, 0.8),
        guarantee_note="pictures of one day",
    )
    with_scores = build_bundle(recipe, spot_network(HEIGHT, WIDTH), data, tmp_path / "a.lsb")
    assert isinstance(with_scores.policy, InspectPolicy)
    assert with_scores.policy.guarantee is not None
    assert with_scores.figures["heldout"]["accuracy"] > 0.95, "the network itself knows nothing of these labels"
    assert with_scores.policy.guarantee.coverage > 0.5
    assert (with_scores.policy.pass_max, with_scores.policy.divert_min) == (0.2, 0.8)
    assert "pictures of one day; on cross-validated scores" in with_scores.policy.guarantee.note
    assert load(tmp_path / "a.lsb").golden("onnx")[0].shape == (2, HEIGHT, WIDTH, 3)
    own = replace(data, heldout=Labelled(values, labels))
    without = build_bundle(recipe, spot_network(HEIGHT, WIDTH), own, tmp_path / "b.lsb")
    assert without.policy.guarantee is not None
    assert without.policy.guarantee.coverage == 0
    assert "cross-validated" not in without.policy.guarantee.note


def test_band_for_people_is_kept_where_the_bounds_would_allow_more() -> None:
    rng = np.random.default_rng(3)
    event = rng.random(2000) < 0.3
    score = np.clip(np.where(event, 0.97, 0.03) + rng.normal(0, 0.01, 2000), 0, 1)
    sample = thresholds.Sample(score, event)
    bounds = {"alpha_escape": 0.02, "alpha_false_reject": 0.02, "delta": 0.05, "unit": "part"}
    free = thresholds.choose_inspect(sample, sample, **bounds)  # type: ignore[arg-type]
    held = thresholds.choose_inspect(sample, sample, **bounds, always_defer=(0.3, 0.7))  # type: ignore[arg-type]
    assert free.pass_max == free.divert_min, "scores this far apart leave nothing unsure"
    assert 0.2 < held.pass_max <= 0.3
    assert 0.7 <= held.divert_min < 0.8


def test_thresholds_fixed_beforehand_are_taken_only_as_far_as_the_sample_proves_them() -> None:
    rng = np.random.default_rng(3)
    event = rng.random(600) < 0.1
    score = np.clip(np.where(event, 0.97, 0.03) + rng.normal(0, 0.01, 600), 0, 1)
    sample = thresholds.Sample(score, event)
    policy = thresholds.choose_inspect(
        sample, sample, alpha_escape=0.02, alpha_false_reject=0.02, delta=0.05, unit="part", fixed=(0.3, 0.7)
    )
    assert policy.pass_max == 0.3
    assert policy.divert_min == thresholds.DIVERT_NOTHING, "some sixty defective ones prove no 2 %"
    assert policy.guarantee is not None
    assert policy.guarantee.method == thresholds.METHOD_FIXED


def test_constant_map_gives_the_same_logits_in_both_engines() -> None:
    network = _with_left_half_masked()
    rng = np.random.default_rng(8)
    values = rng.integers(0, 256, (40, HEIGHT, WIDTH, 3)).astype(np.uint8)
    quantized = quantize(network, values)
    content, spec = write_tflite(quantized)
    one = golden.outputs(quantized.shipped, quantized.spec, values)
    other = golden.outputs(content, spec, values)
    np.testing.assert_allclose(one, other, atol=spec.golden_tolerance)
    assert np.ptp(one[:, 1]) > 0
    changed = values.copy()
    changed[:, :, : WIDTH // 2 - 4] = 255
    np.testing.assert_allclose(one, golden.outputs(quantized.shipped, quantized.spec, changed))


def _with_left_half_masked() -> onnx.ModelProto:
    """The spot network, blind on the left: a constant far below every value is added there."""
    model = spot_network(HEIGHT, WIDTH)
    mask = np.zeros((1, 1, HEIGHT // 2, WIDTH // 2), np.float32)
    mask[..., : WIDTH // 4] = -20.0
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    index = next(i for i, node in enumerate(model.graph.node) if node.op_type == "MaxPool")
    model.graph.node[index].input[0] = "seen"
    for node in (
        helper.make_node("Relu", ["masked"], ["seen"], name="relu_seen"),
        helper.make_node("Add", ["sum", "mask"], ["masked"], name="add_mask"),
    ):
        model.graph.node.insert(index, node)
    return model
