"""What a station's inputs and answers are like, for those who scrape: histograms with fixed edges, shares of late.

Rules:
- Edges never change, whichever bundle decides: a scraper adds up what it finds under one name for years.
- What has no edges here is left out, and at most `MAX_LABELS` labels have a share of their own: a bundle cannot fill a
  scraper's memory.
- Shares are of the last `RECENT` decisions: those since the start say nothing after a month.
"""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge.recognised import wordless
from edge.wire.rows import DecisionRow

RECENT = 200
MAX_LABELS = 64
OTHER = "other"
"""All labels beyond those that have a share of their own."""

_TENTHS = [round(i / 10, 1) for i in range(1, 10)]
_TENS_OF_DB = [float(level) for level in range(-90, 0, 10)]
EDGES: dict[str, list[float]] = {
    "brightness": _TENTHS,
    "contrast": _TENTHS,
    "saturation": _TENTHS,
    "sharpness": [1, 3, 10, 30, 100, 300, 1000, 3000, 10_000],
    "level_dbfs": _TENS_OF_DB,
    "peak_dbfs": _TENS_OF_DB,
    "clipping": [0, 0.0001, 0.001, 0.01, 0.1],
    "speech_share": _TENTHS,
    "duration_s": [0.1, 0.2, 0.5, 1, 2, 5, 10, 20],
    "ood": [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000],
    "confidence": [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999],
}
"""Upper edges of each measure, the last bin is open."""


@dataclass
class Measure:
    """One measure since the start."""

    edges: list[float]
    bins: list[int]
    total: float = 0.0
    """Sum of the values."""

    def copy(self) -> "Measure":
        return Measure(self.edges, list(self.bins), self.total)


@dataclass(frozen=True)
class Shares:
    """Shares of the last decisions, 0…1."""

    labels: dict[str, float] = field(default_factory=dict)
    deferred: float | None = None
    """None before the first decision."""
    empty: float | None = None
    """Of those in which a recogniser was to hear words, how many had none; None of other bundles."""


class Measures:
    """Counts what a station decides. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._measures: dict[str, Measure] = {}
        self._last: deque[tuple[str | None, bool, bool | None]] = deque(maxlen=RECENT)

    def add(self, decision: DecisionRow) -> None:
        """Count one decision."""
        self._measure(decision.metrics)
        if decision.confidence is not None:
            self._measure({"confidence": decision.confidence})
        empty = None if decision.text is None else wordless(decision.text)
        self._last.append((decision.label, decision.verdict == "defer", empty))

    def measures(self) -> dict[str, Measure]:
        """Return each measure with its edges and counts."""
        return {name: measure.copy() for name, measure in dict(self._measures).items()}

    def shares(self) -> Shares:
        """Return the shares of the last decisions."""
        last = list(self._last)
        if not last:
            return Shares()
        heard = [empty for _, _, empty in last if empty is not None]
        counts = Counter(label for label, _, _ in last if label is not None)
        return Shares(
            labels={label: count / len(last) for label, count in _bounded(counts).items()},
            deferred=sum(deferred for _, deferred, _ in last) / len(last),
            empty=sum(heard) / len(heard) if heard else None,
        )

    def _measure(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            edges = EDGES.get(name)
            if edges is None or value != value:
                continue
            measure = self._measures.get(name)
            if measure is None:
                measure = self._measures[name] = Measure(edges, [0] * (len(edges) + 1))
            measure.bins[bisect_left(edges, value)] += 1
            measure.total += value


def _bounded(counts: Counter[str]) -> dict[str, int]:
    found = dict(counts.most_common(MAX_LABELS))
    rest = sum(counts.values()) - sum(found.values())
    return {**found, OTHER: found.get(OTHER, 0) + rest} if rest else found
