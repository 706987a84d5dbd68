"""What is out of distribution, on its whole way through the pipeline: deferred, recorded, and where it looked told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge.engines import Engine
from edge.ood import Reference
from edge.wire.manifest import TensorSpec
from tests.edge.test_pipeline import BRIGHT, DARK, SPEC, Line
from tests.seams.fakes import FakeSession

KNOWN = Reference("mahalanobis", np.eye(2, dtype=np.float32), np.zeros(2, np.float32), limit=3.0)
HEAT = np.zeros((4, 4), np.float32)
HEAT[1, 2] = 5.0


def line(folder: Path, features: tuple[float, float], logits: tuple[float, float] = (9.0, -9.0)) -> Line:
    """A station whose network answers with these features and logits, and looks at one place."""
    made = Line(folder, [BRIGHT, DARK])
    spec = SPEC.model_copy(
        update={
            "features": TensorSpec(name="features", shape=[1, 2], dtype="float32"),
            "heatmap": TensorSpec(name="heatmap", shape=[1, 4, 4], dtype="float32"),
        }
    )
    answer = np.concatenate([logits, features, HEAT.ravel()]).astype(np.float32)
    real = made.bench.serving.current()
    assert real is not None
    made.bench.serving.offer(dataclasses.replace(real, spec=spec, session=FakeSession(spec, [answer]), known=KNOWN))
    return made


def test_strange_input_is_deferred_and_recorded_with_its_score(tmp_path: Path) -> None:
    made = line(tmp_path, (3.0, 4.0))
    decision = made.decide()
    assert (decision.verdict, decision.action, decision.reason) == ("defer", "hand_over", "out_of_distribution")
    assert decision.detail == "unlike all that the model was made for: score 5, limit 3"
    assert decision.metrics["ood"] == 5.0
    assert "recognise" in decision.latency_ms
    assert decision.input.kept, "people must see it"
    assert decision.where is not None
    assert [(peak.x, peak.y, peak.value) for peak in decision.where] == [(0.625, 0.375, 5.0)]


def test_known_input_is_judged_and_its_score_recorded(tmp_path: Path) -> None:
    decision = line(tmp_path, (0.0, 1.5)).decide()
    assert (decision.verdict, decision.reason) == ("pass", None)
    assert decision.metrics["ood"] == 1.5
    assert decision.where is None


def test_defect_says_where_the_network_looked_and_survives_the_store(tmp_path: Path) -> None:
    made = line(tmp_path, (0.0, 0.0), logits=(-9.0, 9.0))
    decision = made.decide()
    assert decision.verdict == "divert"
    (stored,) = made.store.last_decisions(1)
    assert stored.where == decision.where is not None


def test_features_that_are_no_numbers_are_strange_and_the_row_can_be_read(tmp_path: Path) -> None:
    made = line(tmp_path, (float("nan"), 0.0))
    assert made.decide().reason == "out_of_distribution"
    (stored,) = made.store.last_decisions(1)
    assert stored.reason == "out_of_distribution"
    assert "ood" not in stored.metrics


@pytest.mark.parametrize("mode", ["full", "shadow"])
def test_strange_input_is_never_decided_in_any_mode(tmp_path: Path, mode: str) -> None:
    made = line(tmp_path, (30.0, 40.0))
    made.settings = dataclasses.replace(made.settings, mode=mode)  # type: ignore[arg-type]
    decision = made.decide()
    assert (decision.verdict, decision.reason) == ("defer", "out_of_distribution")


def test_bundle_without_a_reference_judges_as_before(tmp_path: Path) -> None:
    made = Line(tmp_path, [BRIGHT])
    engine: Engine | None = made.bench.serving.current()
    assert engine is not None and engine.known is None
    decision = made.decide()
    assert decision.reason is None
    assert "ood" not in decision.metrics
    assert "recognise" not in decision.latency_ms
