"""What a histogram says: its mean and quantiles; pure.

Rules:
- Values are taken as spread evenly within a bin; the two open bins count as lying at their edge.
- Histograms of other edges are never added: the sum holds those like the newest, the rest are counted.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from edge.wire.rows import Histogram


def read(document: Any) -> Histogram | None:
    """Return the histogram in a document, or None where it is not one."""
    try:
        return Histogram.model_validate(document)
    except (ValidationError, ValueError):
        return None


def total_of(parts: Iterable[Histogram]) -> Histogram | None:
    """Return the sum of the parts that have the same edges as the first, or None of none."""
    result: Histogram | None = None
    for part in parts:
        if result is None:
            result = part
        elif part.edges == result.edges:
            result = result + part
    return result


def mean(histogram: Histogram) -> float | None:
    """Return the mean, or None of an empty histogram."""
    if not histogram.total:
        return None
    pairs = zip(_middles(histogram), histogram.counts, strict=True)
    return sum(middle * n for middle, n in pairs) / histogram.total


def quantile(histogram: Histogram, share: float) -> float | None:
    """Return the value below which this share of the counts lies, or None of an empty histogram."""
    if not histogram.total:
        return None
    target = share * histogram.total
    below = 0
    edges = histogram.edges
    for i, n in enumerate(histogram.counts):
        if n and below + n >= target:
            if i in (0, len(edges)):
                return edges[0] if i == 0 else edges[-1]
            return edges[i - 1] + (edges[i] - edges[i - 1]) * max(0.0, target - below) / n
        below += n
    return edges[-1]


def _middles(histogram: Histogram) -> list[float]:
    edges = histogram.edges
    inner = [(a + b) / 2 for a, b in pairwise(edges)]
    return [edges[0], *inner, edges[-1]]
