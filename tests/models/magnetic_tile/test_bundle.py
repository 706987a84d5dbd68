"""The committed bundle: opens, gives its golden answers with a heat map, holds no photograph, promises what it can."""

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import InspectPolicy
from models.magnetic_tile.data import INPUT, Photo
from models.magnetic_tile.evaluate import shipped
from models.magnetic_tile.train import HERE, NAME, VERSION, golden_inputs

MAX_BYTES = 2**20


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(HERE / f"{NAME}-{VERSION}.lsb")


def test_committed_bundle_is_small_and_gives_a_heat_map(bundle: Bundle) -> None:
    assert bundle.ref.size_bytes < MAX_BYTES
    assert bundle.manifest.labels == ["good", "defect"]
    assert bundle.manifest.models["onnx"].heatmap is not None


def test_golden_examples_are_drawn_and_replay(bundle: Bundle) -> None:
    spec, content = bundle.model("onnx")
    inputs, expected = bundle.golden("onnx")
    np.testing.assert_array_equal(inputs, golden_inputs())
    session = open_session(spec.runtime, content, spec, threads=1)
    try:
        answers = np.stack([session.infer(to_model(values[None], spec.input)) for values in inputs])
    finally:
        session.close()
    assert np.abs(answers[:, :2] - expected[:, :2]).max() <= spec.golden_tolerance


def test_guarantee_goes_by_part_and_leaves_room_for_a_person(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert isinstance(policy, InspectPolicy)
    assert policy.guarantee is not None
    assert policy.guarantee.unit == "part"
    assert "cross-validated" in policy.guarantee.note
    assert policy.pass_max < policy.divert_min


def test_figures_show_the_leaky_split_beside_the_honest_one(bundle: Bundle) -> None:
    figures = bundle.manifest.metrics["cross_validated"]
    assert figures["auroc_random_split_leaky"] > figures["auroc_picture"]["auroc"]


def test_shipped_heat_map_points_at_drawn_holes_and_clean_tiles_do_not_count() -> None:
    mask = np.zeros((INPUT.height, INPUT.width), np.uint8)
    hole = mask.copy()
    hole[190:210, 292:308] = 1
    whole = (0, 0, INPUT.width, INPUT.height)
    photos = [
        Photo(f"{place}", place, 1, "blowhole" if place % 2 else "free", place, 0, tile[..., 0], truth, whole)
        for place, (tile, truth) in enumerate(zip(golden_inputs(), (mask, hole, mask, hole), strict=True))
    ]
    assert shipped(HERE / f"{NAME}-{VERSION}.lsb", photos) == {
        "pictures": 2,
        "pointing": 1.0,
        "interval": [1.0, 1.0],
        "pointing_per_kind": {"blowhole": 1.0},
    }
