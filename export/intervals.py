"""Shares with intervals that take groups for what they are: pure.

Rules:
- Clopper and Pearson (Biometrika 26, 1934) on the effective sample size of Korn and Graubard (Survey Methodology 24,
  1998): examples of one group that err together count for less.
- Where nothing or everything is wrong, the effective size is the number of groups: nothing more was seen to vary.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval."""

    count: int
    total: int
    groups: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        return self.count / self.total if self.total else None

    def plain(self) -> dict[str, float | int | None]:
        """Return it as plain values."""
        value = self.value
        return {
            "value": None if value is None else round(value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
            "count": self.count,
            "total": self.total,
            "groups": self.groups,
        }


def share(hits: NDArray[np.bool_], groups: NDArray[np.generic], confidence: float = 0.95) -> Share:
    """Return the share of hits with its interval.

    Args:
        hits: (n,) per example.
        groups: (n,) which examples belong together.
        confidence: of the two-sided interval.
    """
    count, total = int(hits.sum()), len(hits)
    if not total:
        return Share(0, 0, 0, 0.0, 1.0)
    numbers = np.unique(groups, return_inverse=True)[1]
    many = int(numbers.max()) + 1
    low, high = clopper_pearson(count / total, effective_size(hits, numbers), 1 - confidence)
    return Share(count, total, many, low, high)


def effective_size(hits: NDArray[np.bool_], numbers: NDArray[np.intp]) -> float:
    """Return the number of independent examples that would vary as much as these groups do."""
    total, many = len(hits), int(numbers.max()) + 1
    p = float(hits.mean())
    if p in (0.0, 1.0) or many < 2:
        return float(many)
    residuals = np.bincount(numbers, hits - p, many)
    variance = many / (many - 1) * float(np.sum(residuals**2)) / total**2
    return float(np.clip(p * (1 - p) / max(variance, 1e-12), min(many, total), total))


def clopper_pearson(p: float, size: float, delta: float) -> tuple[float, float]:
    """Return the interval for a share seen in `size` independent examples (not necessarily whole)."""
    from scipy.stats import beta

    wrong = p * size
    low = 0.0 if wrong <= 0 else float(beta.ppf(delta / 2, wrong, size - wrong + 1))
    high = 1.0 if wrong >= size else float(beta.ppf(1 - delta / 2, wrong + 1, size - wrong))
    return low, high
