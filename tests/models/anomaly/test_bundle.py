"""The committed bundle: opens, replays, and never passes a part by itself."""

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import InspectPolicy
from models.anomaly.train import HERE, NAME, VERSION


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(HERE / f"{NAME}-{VERSION}.lsb")


def test_golden_examples_replay_within_tolerance(bundle: Bundle) -> None:
    assert bundle.ref.size_bytes < 2**20
    spec, content = bundle.model("onnx")
    inputs, expected = bundle.golden("onnx")
    session = open_session(spec.runtime, content, spec, threads=1)
    try:
        answers = np.stack([session.infer(to_model(values[None], spec.input)) for values in inputs])
    finally:
        session.close()
    assert np.abs(answers[:, :2] - expected[:, :2]).max() <= spec.golden_tolerance


def test_nothing_passes_without_a_defect_ever_seen(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert isinstance(policy, InspectPolicy)
    assert policy.pass_max < 0
    assert 0.5 < policy.divert_min <= 1
    assert policy.guarantee is not None
    assert policy.guarantee.alpha_escape is None
    assert "no bound on escapes" in policy.guarantee.note
