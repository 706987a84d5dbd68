"""What a histogram says: its quantiles; pure.

Rules:
- Values are taken as spread evenly within a bin; the two open bins count as lying at their edge.
- Histograms of other edges are never added: the sum holds those like the first, the rest are left out.
"""

from collections.abc import Iterable
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
