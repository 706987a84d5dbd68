"""What a bundle's figures say of the held-out data: thresholds, calibration, and how alike the formats are. Pure.

Rules:
- Everything is measured on the shipped files, with the calibration and thresholds that are shipped.
- Shares are per example; the guarantee alone counts units.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.calibrate import probabilities
from edge.errors import ModelError
from edge.wire.manifest import GOOD_LABEL, Calibration, InspectPolicy, KeywordPolicy, Policy
from export import calibration, thresholds
from export.recipe import Calibrated, Labelled, Recipe, Runtime
from export.shipping import Shipped

_MOST_APART = 0.005
"""Share of decisions that the formats may take differently; a single one is always allowed."""


def heldout(recipe: Recipe, examples: Labelled, chances: NDArray[np.float64], policy: Policy) -> dict[str, Any]:
    """Measure the shipped thresholds on the sample that proved them, per example."""
    right = chances.argmax(1) == examples.labels
    recall = {
        label: round(float(right[examples.labels == index].mean()), 4)
        for index, label in enumerate(recipe.labels)
        if bool(np.any(examples.labels == index))
    }
    figures: dict[str, Any] = {"count": len(examples), "accuracy": round(float(right.mean()), 4), "recall": recall}
    sample = sample_of(recipe, examples, chances)
    if isinstance(policy, InspectPolicy):
        passed, diverted = sample.score <= policy.pass_max, sample.score >= policy.divert_min
        diverted &= ~passed
        figures |= {
            "coverage": round(float(np.mean(passed | diverted)), 4),
            "passed": int(passed.sum()),
            "escapes": int((passed & sample.event).sum()),
            "diverted": int(diverted.sum()),
            "false_rejects": int((diverted & ~sample.event).sum()),
        }
    elif isinstance(policy, KeywordPolicy):
        accepted = sample.score >= policy.accept_min
        figures |= {
            "coverage": round(float(np.mean(accepted)), 4),
            "accepted": int(accepted.sum()),
            "wrong": int((accepted & ~sample.event).sum()),
        }
    return figures


def calibrated_figures(
    fitted: Calibrated, logits: NDArray[np.float32], chances: NDArray[np.float64], labels: NDArray[np.intp]
) -> dict[str, Any]:
    """Return what the calibration brought: on the pilot that it was fitted on, and on held-out examples."""
    before = probabilities(logits, Calibration())
    return {
        **_rounded({name: value for name, value in asdict(fitted).items() if name not in ("calibration", "tried")}),
        **({"tried": fitted.tried} if fitted.tried else {}),
        "heldout": {
            "ece_before": round(calibration.ece(before, labels), 5),
            "ece_after": round(calibration.ece(chances, labels), 5),
            "nll_before": round(calibration.nll(before, labels), 5),
            "nll_after": round(calibration.nll(chances, labels), 5),
            "reliability_before": calibration.reliability(before, labels),
            "reliability_after": calibration.reliability(chances, labels),
        },
    }


def parity(
    recipe: Recipe, shipped: Mapping[Runtime, Shipped], calibrated: Calibration, policy: Policy
) -> dict[str, Any]:
    """Compare the formats, number by number and decision by decision.

    Raises:
        ModelError: they decide differently more often than an engine's rounding explains.
    """
    if len(shipped) < 2:
        return {}
    a, b = shipped["onnx"].logits, shipped["tflite"].logits
    step = shipped["tflite"].spec.output.scale or 1.0
    one, other = (_verdicts(recipe, probabilities(logits, calibrated), policy) for logits in (a, b))
    apart = int(np.sum(one != other))
    if apart > max(1, _MOST_APART * len(one)):
        raise ModelError(
            f"onnx and tflite decide differently on {apart} of {len(one)} held-out examples, "
            f"expected at most {_MOST_APART:.1%}",
            hint="ship this network as onnx only: Recipe(runtimes=('onnx',))",
        )
    return {
        "parity": {
            "max_steps": round(float(np.abs(a - b).max()) / step, 2),
            "equal_share": round(float(np.mean(np.abs(a - b) < step / 2)), 5),
            "same_label_share": round(float(np.mean(a.argmax(1) == b.argmax(1))), 5),
            "same_decision_share": round(1 - apart / len(one), 5),
        }
    }


def sample_of(recipe: Recipe, examples: Labelled, chances: NDArray[np.float64]) -> thresholds.Sample:
    if recipe.task == "inspect":
        good = recipe.labels.index(GOOD_LABEL)
        return thresholds.Sample(1.0 - chances[:, good], examples.labels != good, examples.groups)
    return thresholds.Sample(chances.max(1), chances.argmax(1) == examples.labels, examples.groups)


def confidence(recipe: Recipe, chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a device records as confidence: of the likelier side for inspection, else of the label."""
    if recipe.task == "inspect":
        good = chances[:, recipe.labels.index(GOOD_LABEL)]
        return np.maximum(good, 1.0 - good)
    return np.asarray(chances.max(1))


def _verdicts(recipe: Recipe, chances: NDArray[np.float64], policy: Policy) -> NDArray[np.intp]:
    """Return a number for each decision: passed, deferred or diverted; which label is accepted, or none."""
    if isinstance(policy, InspectPolicy):
        defect = 1.0 - chances[:, recipe.labels.index(GOOD_LABEL)]
        return np.asarray(np.where(defect <= policy.pass_max, 0, np.where(defect >= policy.divert_min, 2, 1)), np.intp)
    assert isinstance(policy, KeywordPolicy)
    return np.asarray(np.where(chances.max(1) >= policy.accept_min, chances.argmax(1), -1), np.intp)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
