"""The committed bundle: opens, gives its golden answers, and does on real pictures what its card says."""

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import InspectPolicy
from models.ball_screw.data import HELD_OUT
from models.ball_screw.measure import BUNDLE, Figures, measure
from tests.data import real_data

MAX_BYTES = 10**6


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(BUNDLE)


def test_committed_bundle_is_small_and_names_good_parts_good(bundle: Bundle) -> None:
    assert bundle.ref.size_bytes < MAX_BYTES
    assert bundle.manifest.labels == ["good", "pitting"]
    assert (bundle.manifest.name, bundle.manifest.task) == ("ball_screw", "inspect")


def test_thresholds_leave_room_for_a_person_and_say_what_they_promise(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert isinstance(policy, InspectPolicy)
    assert 0 < policy.pass_max < policy.divert_min < 1
    assert policy.guarantee is not None
    assert policy.guarantee.alpha_escape is not None
    assert "cross-validated" in policy.guarantee.note


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_golden_examples_replay_within_tolerance(bundle: Bundle, runtime: str) -> None:
    spec, content = bundle.model(runtime)
    inputs, expected = bundle.golden(runtime)
    session = open_session(spec.runtime, content, spec, threads=1)
    try:
        answers = np.stack([session.infer(to_model(values[None], spec.input)) for values in inputs])
    finally:
        session.close()
    assert np.abs(answers[:, :2] - expected).max() <= spec.golden_tolerance
    assert set(expected.argmax(1)) == {0, 1}, "the examples must hold good and pitted pictures"


def test_lineage_names_the_position_that_was_held_out(bundle: Bundle) -> None:
    assert bundle.manifest.lineage["held_out_position"] == HELD_OUT


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_position_never_seen_is_judged_as_the_card_says(runtime: str) -> None:
    figures = _measured(runtime)
    assert figures.pictures == 69
    assert figures.auroc is not None
    assert figures.auroc >= 0.95
    assert figures.wrong_share <= 0.02
    assert figures.coverage >= 0.5
    assert figures.turned_away == 0


def _measured(runtime: str) -> Figures:
    [figures] = measure(BUNDLE, real_data("ball-screw"), [HELD_OUT], runtime)
    return figures
