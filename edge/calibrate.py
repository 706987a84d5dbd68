"""From logits to calibrated probabilities: pure.

Rules:
- softmax((logits × scale + bias) / temperature), in float64, so that replay gives the same bits.
- The method and its numbers come from the manifest (Guo et al. 2017, On Calibration of Modern Neural Networks).
"""

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.wire.manifest import Calibration


def probabilities(logits: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    """Return the calibrated probabilities of one output.

    Args:
        logits: (labels,) float32, or (n, labels).
        calibration: from the manifest.

    Returns:
        Same shape, float64, each row adding up to one.

    Raises:
        ModelError: a logit is not a finite number, or vector calibration has not one number per label.
    """
    values = np.asarray(logits, np.float64)
    if not np.isfinite(values).all():
        raise ModelError("the network answered with a number that is not finite", hint="the bundle is not usable")
    if calibration.method == "vector":
        values = values * _per_label(calibration.scale, values) + _per_label(calibration.bias, values)
    values = values / calibration.temperature
    values = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(values / values.sum(axis=-1, keepdims=True))


def _per_label(numbers: list[float] | None, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if numbers is None or len(numbers) != values.shape[-1]:
        got = "none" if numbers is None else str(len(numbers))
        raise ModelError(f"vector calibration: expected {values.shape[-1]} numbers, got {got}")
    return np.asarray(numbers, np.float64)
