"""Fits a calibration, so that a probability of 0.9 is right nine times in ten: pure.

Rules:
- Fitted by likelihood on held-out logits of the shipped file (Guo et al. 2017, On Calibration of Modern Neural
  Networks): one temperature, or a scale and bias per label ("vector scaling").
- A vector is pulled towards "change nothing", so that few examples cannot bend it far.
- What it brought is measured by `edge.calibrate` itself, the code that devices run.
"""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.calibrate import probabilities
from edge.wire.manifest import Calibration
from export.recipe import Calibrated

_BINS = 15
_LOG_TEMPERATURE = (math.log(0.25), math.log(20.0))
"""Below: a sample without any error would have certainty without end. Beyond: the network is not overconfident
but wrong."""
_PULL = 1.0
"""Weight of "change nothing" against the examples' summed likelihood: about one example's worth per parameter."""
_NEWTON_STEPS = 50


def fit(
    logits: NDArray[np.float32], labels: NDArray[np.intp], method: Literal["none", "temperature", "vector"]
) -> Calibrated:
    """Return the calibration that makes these labels likeliest, with its figures before and after.

    Args:
        logits: (n, labels) of the shipped file.
        labels: (n,) indices.
        method: "none" changes nothing.
    """
    fitted = Calibration()
    if method == "temperature":
        fitted = Calibration(method="temperature", temperature=_temperature(logits, labels))
    elif method == "vector":
        scale, bias = _vector(logits, labels)
        fitted = Calibration(method="vector", scale=scale, bias=bias)
    before, after = probabilities(logits, Calibration()), probabilities(logits, fitted)
    return Calibrated(
        calibration=fitted,
        nll_before=nll(before, labels),
        nll_after=nll(after, labels),
        ece_before=ece(before, labels),
        ece_after=ece(after, labels),
    )


def nll(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    return float(-np.mean(np.log(np.maximum(chances[np.arange(len(labels)), labels], 1e-12))))


def ece(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
    """Return the expected calibration error of the likeliest label, over 15 equally wide bins."""
    confidence = chances.max(1)
    right = chances.argmax(1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(float(np.sum(right[bins == b]) - np.sum(confidence[bins == b]))) for b in range(_BINS)]
    return sum(gaps) / max(len(labels), 1)


def _temperature(logits: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    """Golden-section search: the likelihood has one peak in the temperature."""

    def loss(log_temperature: float) -> float:
        chances = probabilities(logits, Calibration(method="temperature", temperature=math.exp(log_temperature)))
        return nll(chances, labels)

    low, high = _LOG_TEMPERATURE
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return round(math.exp((low + high) / 2), 5)


def _vector(logits: NDArray[np.float32], labels: NDArray[np.intp]) -> tuple[list[float], list[float]]:
    """Newton's method with halving steps on a convex loss."""
    values = logits.astype(np.float64)
    count = values.shape[1]
    start = np.concatenate([np.ones(count), np.zeros(count)])
    theta = start.copy()
    for _ in range(_NEWTON_STEPS):
        loss, gradient, curvature = _vector_loss(values, labels, theta, start)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while _vector_loss(values, labels, theta - size * step, start)[0] > loss and size > 1e-6:
            size /= 2
        theta = theta - size * step
        if float(np.abs(size * step).max()) < 1e-7:
            break
    return [round(float(x), 6) for x in theta[:count]], [round(float(x), 6) for x in theta[count:]]


def _vector_loss(
    values: NDArray[np.float64], labels: NDArray[np.intp], theta: NDArray[np.float64], start: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return loss, gradient and Hessian in (scale, bias)."""
    count = values.shape[1]
    scores = values * theta[:count] + theta[count:]
    scores -= scores.max(1, keepdims=True)
    chances = np.exp(scores)
    chances /= chances.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -float(np.sum(np.log(np.maximum(chances[rows, labels], 1e-12))))
    loss += _PULL * float(np.sum((theta - start) ** 2))
    slope = chances.copy()
    slope[rows, labels] -= 1
    gradient = np.concatenate([(slope * values).sum(0), slope.sum(0)]) + 2 * _PULL * (theta - start)
    spread = np.einsum("ni,ij->nij", chances, np.eye(count)) - np.einsum("ni,nj->nij", chances, chances)
    top = np.einsum("nij,ni,nj->ij", spread, values, values)
    side = np.einsum("nij,ni->ij", spread, values)
    hessian = np.block([[top, side], [side.T, spread.sum(0)]]) + 2 * _PULL * np.eye(2 * count)
    return loss, gradient, hessian
