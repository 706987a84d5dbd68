"""The committed bundle: opens, gives its golden answers, and does on real pictures what its card says."""

import os
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import InspectPolicy
from models.ball_screw.data import HELD_OUT, position_of
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
def test_every_fifth_picture_of_a_position_never_seen_is_judged_alike_by_both_runtimes(tmp_path: Path) -> None:
    folder = real_data("ball-screw")
    shown = [path for path in sorted(folder.glob("*/*.jpg")) if position_of(path.name) == HELD_OUT][::5]
    for path in shown:
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).symlink_to(path)
    [first], [second] = (measure(BUNDLE, tmp_path, [HELD_OUT], runtime) for runtime in ("onnx", "tflite"))
    assert first == second
    assert (first.pictures, first.turned_away) == (14, 0)
    _as_the_card_says(first)


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.skipif("LINESIDE_LONG" not in os.environ, reason="25 s of processor time; LINESIDE_LONG=1 runs it")
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_position_never_seen_is_judged_as_the_card_says(runtime: str) -> None:
    [figures] = measure(BUNDLE, real_data("ball-screw"), [HELD_OUT], runtime)
    assert (figures.pictures, figures.turned_away) == (69, 0)
    _as_the_card_says(figures)


def _as_the_card_says(figures: Figures) -> None:
    assert figures.auroc is not None
    assert figures.auroc >= 0.95
    assert figures.wrong_share <= 0.02
    assert figures.coverage >= 0.5
