"""The committed bundle: opens, gives its golden answers, and holds what its card promises."""

import numpy as np
import pytest

from edge.bundle import Bundle, load
from edge.preprocess import to_model
from edge.runtimes import open_session
from edge.wire.manifest import InspectPolicy
from models.pcb.data import LABELS
from models.pcb.measure import BUNDLE, measure
from tests.data import real_data

MAX_BYTES = 10**6


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load(BUNDLE)


def test_committed_bundle_is_small_and_names_the_six_kinds(bundle: Bundle) -> None:
    assert bundle.ref.size_bytes < MAX_BYTES
    assert bundle.manifest.labels == LABELS
    assert (bundle.manifest.name, bundle.manifest.task) == ("pcb", "inspect")


@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_golden_examples_replay_within_tolerance(bundle: Bundle, runtime: str) -> None:
    spec, content = bundle.model(runtime)
    inputs, expected = bundle.golden(runtime)
    session = open_session(spec.runtime, content, spec, threads=1)
    try:
        answers = np.stack([session.infer(to_model(values[None], spec.input))[: len(LABELS)] for values in inputs])
    finally:
        session.close()
    assert np.abs(answers - expected[:, : len(LABELS)]).max() <= spec.golden_tolerance
    assert 0 in expected[:, : len(LABELS)].argmax(1)
    assert len(set(expected[:, : len(LABELS)].argmax(1))) > 1


def test_network_says_where_it_looked(bundle: Bundle) -> None:
    for spec in bundle.manifest.models.values():
        assert spec.heatmap is not None
        assert spec.heatmap.shape[-2:] == [40, 40]


def test_boards_that_the_reference_does_not_know_are_not_called_strange(bundle: Bundle) -> None:
    found = bundle.manifest.metrics["export"]["out_of_distribution"]
    assert bundle.manifest.out_of_distribution is not None
    assert set(found["false_alarms_by_block"]) == {"00041", "12000", "12100", "12300"}
    assert max(found["false_alarms_by_block"].values()) <= 0.05
    assert min(found["found"][kind] for kind in ("dark", "blurred", "black", "noise", "other material")) >= 0.9


def test_boards_never_seen_are_judged_as_promised(bundle: Bundle) -> None:
    figures = bundle.manifest.metrics["boards_never_seen"]
    assert set(figures) == {"00041", "12000", "12100", "12300", "all"}
    assert figures["all"]["auroc"] >= 0.995
    assert figures["all"]["false_rejects_at_99_recall"] <= 0.03


def test_guarantee_counts_pairs_and_covers_most_of_them(bundle: Bundle) -> None:
    policy = bundle.manifest.policy
    assert isinstance(policy, InspectPolicy)
    assert policy.guarantee is not None
    assert (policy.guarantee.alpha_escape, policy.guarantee.alpha_false_reject) == (0.01, 0.02)
    assert policy.guarantee.unit == "pair"
    assert policy.guarantee.coverage >= 0.8


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "tflite"])
def test_scans_are_judged_by_the_device_as_by_the_recipe(runtime: str) -> None:
    figures = measure(BUNDLE, real_data("pcb"), ["12000"], runtime)
    assert figures.scans == 28
    assert figures.auroc is not None and figures.auroc >= 0.995
    assert (figures.escapes, figures.turned_away) == (0, 0)
