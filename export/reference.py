"""What good input looks like: limits for the gate and histograms for drift, from reference data. Pure.

Rules:
- Metrics are measured by `edge.gate`, the code that devices run.
- Gate limits lie well outside the reference: the gate is for input that must not be judged, drift is for the rest.
- Edges stand at quantiles of the reference, so each bin holds about as much and a shift shows wherever it happens.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.gate import picture_metrics, sound_metrics
from edge.wire.manifest import Limits
from edge.wire.rows import Histogram
from export.recipe import Sound

BINS = 12
"""Enough to see the shape, few enough that 100 decisions fill each bin with 8."""
_TAIL = 0.002
"""Share of the reference beyond the quantile that limits are drawn from, so one odd picture does not set them."""
_MARGIN = 1.0
"""How far beyond that quantile a limit lies, in distances of the quantile from the median."""
_GATED: dict[str, tuple[bool, bool]] = {
    "brightness": (True, True),
    "contrast": (True, False),
    "sharpness": (True, False),
    "level_dbfs": (True, False),
    "clipping": (False, True),
}
"""Which ends of which metrics are limited; colour and length may vary, that is drift's matter."""
_LEAST_SHARE = 0.3
"""A minimum of a metric that cannot be negative is at least this share of the lowest seen, so that it always bites."""
_LEAST_MAX = {"clipping": 0.05}
"""A maximum is never set below this: single clipped samples do no harm."""


def measure(inputs: Sequence[NDArray[np.uint8]] | Sequence[Sound]) -> dict[str, NDArray[np.float64]]:
    """Return each input metric over the reference inputs: BGR pictures, or (samples, rate in Hz).

    Raises:
        ValueError: there are no inputs.
    """
    if not len(inputs):
        raise ValueError("reference: expected at least one raw input, got none")
    rows = [sound_metrics(*item) if isinstance(item, tuple) else picture_metrics(item) for item in inputs]
    return {name: np.asarray([row[name] for row in rows], np.float64) for name in rows[0]}


def gate_limits(
    metrics: Mapping[str, NDArray[np.float64]], least: Mapping[str, float] | None = None
) -> dict[str, Limits]:
    """Return the limits beyond which an input must not be judged.

    Args:
        metrics: (n,) each, of the reference.
        least: by metric, the share of the lowest seen that its minimum is at least.
    """
    limits: dict[str, Limits] = {}
    for name, (lower, upper) in _GATED.items():
        if name not in metrics:
            continue
        low, median, high = (float(q) for q in np.quantile(metrics[name], [_TAIL, 0.5, 1 - _TAIL]))
        maximum = max(high + _MARGIN * (high - median), _LEAST_MAX.get(name, -np.inf))
        minimum = low - _MARGIN * (median - low)
        if low > 0:
            minimum = max(minimum, (least or {}).get(name, _LEAST_SHARE) * low)
        limits[name] = Limits(
            min=_rounded(minimum) if lower else None,
            max=_rounded(maximum) if upper else None,
        )
    return limits


def histograms(metrics: Mapping[str, NDArray[np.float64]]) -> dict[str, Histogram]:
    """Return the reference distribution of each metric; its total is the size of the reference."""
    return {name: histogram(values, quantile_edges(values)) for name, values in metrics.items()}


def quantile_edges(values: NDArray[np.float64], bins: int = BINS) -> list[float]:
    """Return the inner edges of `bins` bins with about as many values in each; fewer where values repeat."""
    inner = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    return sorted({_rounded(float(edge)) for edge in inner})


def histogram(values: NDArray[np.float64], edges: list[float]) -> Histogram:
    """Return counts below the first edge, between each two, and from the last on."""
    places = np.searchsorted(np.asarray(edges), values, side="right")
    return Histogram(edges=edges, counts=[int(n) for n in np.bincount(places, minlength=len(edges) + 1)])


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
