"""From logits to calibrated probabilities: pure.

Rules:
- softmax((logits × scale + bias) / temperature), in float64, so that replay gives the same bits; `isotonic` then moves
  one label's probability along straight pieces. `sigmoid` takes each label for itself.
- One output at a time, in plain floats: right behind a network, array functions cost ten times what they compute.
- The method and its numbers come from the manifest (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.wire.manifest import Calibration


def calibrated(logits: Sequence[float], calibration: Calibration) -> list[float]:
    """Return the calibrated probabilities of one output, adding up to one (but those of `sigmoid`).

    Args:
        logits: one per label.
        calibration: from the manifest.

    Raises:
        ModelError: a logit is not a finite number, or vector calibration has not one number per label.
    """
    if not all(map(math.isfinite, logits)):
        raise ModelError("the network answered with a number that is not finite", hint="the bundle is not usable")
    values = logits
    if calibration.method == "sigmoid":
        return _sigmoids(logits, calibration)
    if calibration.method == "vector":
        scale, bias = _per_label(calibration.scale, len(logits)), _per_label(calibration.bias, len(logits))
        values = [value * s + b for value, s, b in zip(logits, scale, bias, strict=True)]
    top, temperature = max(values), calibration.temperature
    powers = [math.exp((value - top) / temperature) for value in values]
    total = sum(powers)
    chances = [power / total for power in powers]
    return _moved(chances, calibration) if calibration.method == "isotonic" else chances


def probabilities(logits: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    """Return `calibrated` for many outputs.

    Args:
        logits: (n, labels) float32.
        calibration: from the manifest.

    Returns:
        (n, labels) float64.

    Raises:
        ModelError: as `calibrated`.
    """
    return np.array([calibrated(row, calibration) for row in logits.tolist()], np.float64).reshape(logits.shape)


def _sigmoids(logits: Sequence[float], calibration: Calibration) -> list[float]:
    """Return each label's own probability; scale and bias are one number a label, or none."""
    values, labels = list(logits), len(logits)
    if calibration.scale is not None or calibration.bias is not None:
        scale, bias = _per_label(calibration.scale, labels), _per_label(calibration.bias, labels)
        values = [value * s + b for value, s, b in zip(logits, scale, bias, strict=True)]
    # By the sign, so that no power overflows.
    powers = [math.exp(-abs(value) / calibration.temperature) for value in values]
    return [1 / (1 + p) if value >= 0 else p / (1 + p) for value, p in zip(values, powers, strict=True)]


def _moved(chances: list[float], calibration: Calibration) -> list[float]:
    """Move one label's probability along the knots; the others keep their proportions."""
    label, knots = calibration.label, calibration.knots
    if label is None or knots is None or label >= len(chances):
        raise ModelError(f"isotonic calibration: expected knots for one of {len(chances)} labels, got label {label}")
    before = min(max(chances[label], 0.0), 1.0)
    right = min(max(bisect_right(knots, before, key=_first), 1), len(knots) - 1)
    (x0, y0), (x1, y1) = knots[right - 1], knots[right]
    after = y0 + (y1 - y0) * (before - x0) / (x1 - x0)
    others = math.fsum(chances) - chances[label]
    if others <= 0.0:
        return [after if index == label else (1.0 - after) / (len(chances) - 1) for index in range(len(chances))]
    return [after if index == label else chance * (1.0 - after) / others for index, chance in enumerate(chances)]


def _first(knot: tuple[float, float]) -> float:
    return knot[0]


def _per_label(numbers: list[float] | None, labels: int) -> list[float]:
    if numbers is None or len(numbers) != labels:
        got = "none" if numbers is None else str(len(numbers))
        raise ModelError(f"vector calibration: expected {labels} numbers, got {got}")
    return numbers
