"""Fits a calibration, so that a probability of 0.9 is right nine times in ten: pure.

Rules:
- Fitted by likelihood on held-out logits of the shipped file (Guo et al. 2017, On Calibration of Modern Neural
  Networks): one temperature, or a scale and bias per label ("vector scaling"); for inspection also a rising curve
  for the probability of good (`export.isotonic`).
- A vector is pulled towards "change nothing", so that few examples cannot bend it far.
- What it brought is measured by `edge.calibrate` itself, the code that devices run.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.calibrate import probabilities
from edge.wire.manifest import Calibration
from export import isotonic
from export.recipe import Calibrated, Method

_BINS = 15
_LOG_TEMPERATURE = (math.log(0.25), math.log(20.0))
"""Below: a sample without any error would have certainty without end. Beyond: the network is not overconfident
but wrong."""
_PULL = 1.0
"""Weight of "change nothing" against the examples' summed likelihood: about one example's worth per parameter."""
_LEAST_CHANCE = 1e-12
_LARGEST_LOSS = -math.log(_LEAST_CHANCE)
"""Of one example, so that a certainty that was wrong is not without end."""
_NEWTON_STEPS = 50
_FOLDS, _FOLD_SEED = 5, 3


def fit(
    logits: NDArray[np.float32],
    labels: NDArray[np.intp],
    method: Method,
    *,
    groups: NDArray[Any] | None = None,
    good: int | None = None,
) -> Calibrated:
    """Return the calibration that makes these labels likeliest, with its figures before and after.

    Args:
        logits: (n, labels) of the shipped file.
        labels: (n,) indices.
        method: "none" changes nothing; "auto" takes the method with the best cross-validated likelihood.
        groups: (n,) which examples belong together, for the cross-validation; None if each stands alone.
        good: index of the label `good`, for inspection; isotonic calibration needs it.

    Raises:
        ValueError: isotonic without a label to calibrate.
    """
    tried: dict[str, float] = {}
    if method == "auto":
        method, tried = _chosen(logits, labels, groups, good)
    fitted = _fitted(logits, labels, method, good)
    before, after = probabilities(logits, Calibration()), probabilities(logits, fitted)
    return Calibrated(
        calibration=fitted,
        nll_before=nll(before, labels),
        nll_after=nll(after, labels),
        ece_before=ece(before, labels),
        ece_after=ece(after, labels),
        method=method,
        tried=tried,
    )


def reliability(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> list[tuple[float, float, int]]:
    """Return the reliability diagram: of each bin that holds any, (mean confidence, share right, count)."""
    confidence, right, bins = _binned(chances, labels)
    held = [bins == b for b in range(_BINS)]
    return [
        (round(float(confidence[inside].mean()), 4), round(float(right[inside].mean()), 4), int(inside.sum()))
        for inside in held
        if inside.any()
    ]


def nll(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
    """Return the mean negative log-likelihood of the labels, in nats."""
    return float(np.mean(_losses(chances, labels)))


def ece(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> float:
    """Return the expected calibration error of the likeliest label, over 15 equally wide bins."""
    confidence, right, bins = _binned(chances, labels)
    gaps = [abs(float(np.sum(right[bins == b]) - np.sum(confidence[bins == b]))) for b in range(_BINS)]
    return sum(gaps) / max(len(labels), 1)


def _losses(chances: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.asarray(-np.log(np.maximum(chances[np.arange(len(labels)), labels], _LEAST_CHANCE)))


def _binned(
    chances: NDArray[np.float64], labels: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp]]:
    """Return of each example the confidence, whether it is right, and the bin of the confidence."""
    confidence = np.asarray(chances.max(1))
    return confidence, chances.argmax(1) == labels, np.minimum((confidence * _BINS).astype(np.intp), _BINS - 1)


def _fitted(logits: NDArray[np.float32], labels: NDArray[np.intp], method: Method, good: int | None) -> Calibration:
    if method == "temperature":
        return Calibration(method="temperature", temperature=_temperature(logits, labels))
    if method == "vector":
        scale, bias = _vector(logits, labels)
        return Calibration(method="vector", scale=scale, bias=bias)
    if method == "isotonic":
        if good is None:
            raise ValueError("isotonic calibration moves one label's probability: it is for inspection only")
        temperature = _temperature(logits, labels)
        chances = probabilities(logits, Calibration(method="temperature", temperature=temperature))[:, good]
        points = isotonic.knots(chances, labels == good)
        return Calibration(method="isotonic", temperature=temperature, label=good, knots=points)
    return Calibration()


def _chosen(
    logits: NDArray[np.float32], labels: NDArray[np.intp], groups: NDArray[Any] | None, good: int | None
) -> tuple[Method, dict[str, float]]:
    """Return the method, and the mean loss of each on folds that it was not fitted on.

    Another method than the temperature must win by more than one standard error over the groups: it has more to
    learn from the same few examples, and thresholds of rare errors hang on the tails.
    """
    numbers = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    folds = np.random.default_rng(_FOLD_SEED).permutation(int(numbers.max()) + 1)[numbers] % _FOLDS
    methods: list[Method] = ["temperature", "vector"] if good is None else ["temperature", "vector", "isotonic"]
    losses = {method: np.zeros(len(labels)) for method in methods}
    for fold in range(_FOLDS):
        inside = folds == fold
        if not inside.any() or inside.all():
            return "temperature", {}
        for method in methods:
            fitted = _fitted(logits[~inside], labels[~inside], method, good)
            losses[method][inside] = _losses(probabilities(logits[inside], fitted), labels[inside])
    tried = {str(method): round(float(loss.mean()), 5) for method, loss in losses.items()}
    best = min(methods, key=lambda method: tried[method])
    gain = np.bincount(numbers, losses["temperature"] - losses[best])
    error = float(gain.std() * math.sqrt(len(gain)))
    return (best if float(gain.sum()) > error else "temperature"), tried


def _temperature(logits: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    """Golden-section search: the likelihood has one peak in the temperature."""

    values = logits.astype(np.float64)
    values -= values.max(1, keepdims=True)
    own = values[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        """Return `nll`, of all rows at once: devices' way, row by row, takes a hundred times as long."""
        temperature = math.exp(log_temperature)
        losses = np.log(np.exp(values / temperature).sum(1)) - own / temperature
        return float(np.mean(np.minimum(losses, _LARGEST_LOSS)))

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
    loss = -float(np.sum(np.log(np.maximum(chances[rows, labels], _LEAST_CHANCE))))
    loss += _PULL * float(np.sum((theta - start) ** 2))
    slope = chances.copy()
    slope[rows, labels] -= 1
    gradient = np.concatenate([(slope * values).sum(0), slope.sum(0)]) + 2 * _PULL * (theta - start)
    spread = np.einsum("ni,ij->nij", chances, np.eye(count)) - np.einsum("ni,nj->nij", chances, chances)
    top = np.einsum("nij,ni,nj->ij", spread, values, values)
    side = np.einsum("nij,ni->ij", spread, values)
    hessian = np.block([[top, side], [side.T, spread.sum(0)]]) + 2 * _PULL * np.eye(2 * count)
    return loss, gradient, hessian
