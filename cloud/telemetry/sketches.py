"""Adds up histograms of any edges and gives their percentiles with what is certain about them; pure.

Rules:
- A sketch is edges and counts, so adding two of the same edges loses nothing, in any order.
- Those of other edges are not forced into one: they stand beside each other, and a percentile is asked of all together.
- A percentile is the k-th smallest value, k = ⌈share · n⌉. The answer holds `low` ≤ it < `high` for certain, by
  counting what must lie below an edge and what may; `value` lies between by taking values as even within a bin.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Bins = Counter[int]
"""Bin → count; bin i holds edges[i − 1] ≤ value < edges[i]."""


@dataclass(frozen=True)
class Percentile:
    """One percentile with its certain bounds; None where the bin is open."""

    value: float
    low: float | None
    high: float | None


@dataclass
class Mixture:
    """Histograms of any edges, as one sample."""

    parts: dict[tuple[float, ...], Bins] = field(default_factory=dict)

    def add(self, edges: Sequence[float], bins: Bins) -> None:
        """Add a histogram."""
        self.parts.setdefault(tuple(edges), Counter()).update(bins)

    def update(self, other: "Mixture") -> None:
        """Add another mixture."""
        for edges, bins in other.parts.items():
            self.add(edges, bins)

    @property
    def total(self) -> int:
        return sum(bins.total() for bins in self.parts.values())

    def percentile(self, share: float, *, floor: float | None = None) -> Percentile | None:
        """Return a percentile, or None of nothing.

        Args:
            share: between 0 and 1.
            floor: what no value lies below, if there is such a bound.
        """
        n = self.total
        if not n:
            return None
        k = min(max(math.ceil(share * n - 1e-9), 1), n)
        low, high = self._of_one(k) if len(self.parts) == 1 else self._of_several(k)
        low = floor if low is None else low
        return Percentile(self._between(low, high, k), low, high)

    def _of_one(self, k: int) -> tuple[float | None, float | None]:
        (edges, bins), below = next(iter(self.parts.items())), 0
        for index in sorted(bins):
            below += bins[index]
            if below >= k:
                return (edges[index - 1] if index else None), (edges[index] if index < len(edges) else None)
        raise AssertionError("k is at most n")

    def _of_several(self, k: int) -> tuple[float | None, float | None]:
        edges = sorted({edge for part in self.parts for edge in part})
        lows = [edge for edge in edges if self._maybe_below(edge) < k]
        return (lows[-1] if lows else None), next((edge for edge in edges if self._surely_below(edge) >= k), None)

    def _surely_below(self, x: float) -> int:
        return sum(_counted(bins, bisect_right(edges, x)) for edges, bins in self.parts.items())

    def _maybe_below(self, x: float) -> int:
        # Bin i begins at edges[i − 1]: all that begin below x, the open first one among them.
        return sum(_counted(bins, _beginning_below(edges, x)) for edges, bins in self.parts.items())

    def _between(self, low: float | None, high: float | None, k: int) -> float:
        if low is None or high is None:
            return high if low is None and high is not None else low or 0.0
        knots = sorted({low, high, *(edge for part in self.parts for edge in part if low < edge < high)})
        for a, b in pairwise(knots):
            below, upto = self._even_below(a, low), self._even_below(b, low)
            if upto >= k - 0.5 and upto > below:
                return a + (b - a) * min(1.0, max(0.0, (k - 0.5 - below) / (upto - below)))
        return high

    def _even_below(self, x: float, floor: float) -> float:
        return sum(_even(edges, bins, x, floor) for edges, bins in self.parts.items())


def merged(parts: Iterable[tuple[Sequence[float], Bins]]) -> Mixture:
    """Return histograms as one mixture."""
    mixture = Mixture()
    for edges, bins in parts:
        mixture.add(edges, bins)
    return mixture


def sparse(counts: Sequence[int]) -> Bins:
    """Return the bins of a histogram's counts that hold something."""
    return Counter({index: count for index, count in enumerate(counts) if count > 0})


def dense(bins: Bins, size: int) -> list[int]:
    """Return counts of all bins."""
    return [bins.get(index, 0) for index in range(size)]


def _counted(bins: Bins, until: int) -> int:
    return sum(count for index, count in bins.items() if index < until)


def _beginning_below(edges: tuple[float, ...], x: float) -> int:
    return sum(1 for edge in edges if edge < x) + 1


def _even(edges: tuple[float, ...], bins: Bins, x: float, floor: float) -> float:
    """Return how many values lie below x if they are even within each bin; open bins end at what is known."""
    below = 0.0
    for index, count in bins.items():
        start = edges[index - 1] if index else min(floor, edges[0])
        end = edges[index] if index < len(edges) else start
        if end <= x:
            below += count if end > start or start < x else 0
        elif start < x:
            below += count * (x - start) / (end - start)
    return below
