"""Whether an input metric still looks like the bundle's reference: a two-sample test on histograms, pure.

Rules:
- Every `window` decisions the metric's counts are compared with the reference counts by the chi-square test of
  homogeneity (Pearson 1900; bins with few expected counts are merged with their neighbour).
- The alarm threshold comes from the stated false-alarm rate per comparison, shared among the metrics (Bonferroni);
  an alarm needs two comparisons in a row, and is cleared by two quiet ones.
- The rate holds for independent windows; pictures of one part taken in a row are not, so they count as one.
"""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.wire.rows import Histogram

WINDOW = 64
"""Decisions in one comparison: enough to see a shift of half a standard deviation, few enough to see it in minutes."""
FALSE_ALARM_RATE = 1e-3
"""Probability of a false alarm per comparison, over all metrics together, before the second in a row is asked for."""
_MIN_EXPECTED = 4.0
"""Smallest expected count of a bin; below it the chi-square approximation is poor (Cochran 1954)."""
_IN_A_ROW = 2


@dataclass(frozen=True)
class Shift:
    """The outcome of one comparison that changed the state of a metric."""

    metric: str
    raised: bool
    p_value: float
    window_median: float
    reference_median: float


@dataclass
class _Metric:
    reference: Histogram
    counts: list[int]
    alarmed: bool = False
    agreeing: int = 0
    """Comparisons in a row that speak against the present state."""


@dataclass
class DriftWatch:
    """Compares a stream of metrics with their references. Not for several threads."""

    reference: Mapping[str, Histogram]
    window: int = WINDOW
    false_alarm_rate: float = FALSE_ALARM_RATE
    _metrics: dict[str, _Metric] = field(default_factory=dict)
    _seen: int = 0

    def __post_init__(self) -> None:
        self._metrics = {
            name: _Metric(histogram, [0] * len(histogram.counts))
            for name, histogram in self.reference.items()
            if histogram.total > 0
        }

    @property
    def alarmed(self) -> list[str]:
        return sorted(name for name, metric in self._metrics.items() if metric.alarmed)

    def add(self, values: Mapping[str, float]) -> list[Shift]:
        """Count the metrics of one decision; return what changed if a comparison was due."""
        for name, metric in self._metrics.items():
            if name in values:
                metric.counts[bisect.bisect_right(metric.reference.edges, values[name])] += 1
        self._seen += 1
        if self._seen < self.window:
            return []
        self._seen = 0
        return [shift for name, metric in self._metrics.items() if (shift := self._compare(name, metric))]

    def _compare(self, name: str, metric: _Metric) -> Shift | None:
        counts, metric.counts = metric.counts, [0] * len(metric.counts)
        if sum(counts) < self.window // 2:
            return None
        p_value = homogeneity_p(counts, metric.reference.counts)
        differs = p_value < self.false_alarm_rate / len(self._metrics)
        metric.agreeing = metric.agreeing + 1 if differs != metric.alarmed else 0
        if metric.agreeing < _IN_A_ROW:
            return None
        metric.alarmed, metric.agreeing = differs, 0
        edges = metric.reference.edges
        return Shift(name, differs, p_value, median(edges, counts), median(edges, metric.reference.counts))


def homogeneity_p(sample: list[int], reference: list[int]) -> float:
    """Return the p-value of the chi-square test that both count the same distribution."""
    merged = _merge(sample, reference)
    n, m = sum(s for s, _ in merged), sum(r for _, r in merged)
    if len(merged) < 2 or not n or not m:
        return 1.0
    ratio = math.sqrt(m / n)
    statistic = sum((ratio * s - r / ratio) ** 2 / (s + r) for s, r in merged)
    return _chi_square_tail(statistic, len(merged) - 1)


def median(edges: list[float], counts: list[int]) -> float:
    """Return the edge nearest the middle of the counts (the metric's own unit)."""
    half, below = sum(counts) / 2, 0
    for index, count in enumerate(counts):
        below += count
        if below >= half:
            return edges[min(index, len(edges) - 1)]
    return edges[-1]


def _merge(sample: list[int], reference: list[int]) -> list[tuple[int, int]]:
    """Join neighbouring bins until each expects enough of the sample."""
    total = sum(sample) + sum(reference)
    share = sum(sample) / total if total else 0.0
    merged: list[tuple[int, int]] = []
    held = (0, 0)
    for s, r in zip(sample, reference, strict=True):
        held = (held[0] + s, held[1] + r)
        if (held[0] + held[1]) * share >= _MIN_EXPECTED:
            merged.append(held)
            held = (0, 0)
    if held != (0, 0):
        if merged:
            merged[-1] = (merged[-1][0] + held[0], merged[-1][1] + held[1])
        else:
            merged.append(held)
    return merged


def _chi_square_tail(statistic: float, degrees: int) -> float:
    """Upper tail of the chi-square distribution by the Wilson–Hilferty cube root (1931), good to a few per cent."""
    spread = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))
