"""Whether a metric has moved away from what it was, how far, and since when; pure.

Rules:
- Two samples of counts over the same bins are compared by the largest difference of their shares below an edge
  (Kolmogorov–Smirnov), or of one category. It says how far in a number that needs no unit: 0 is the same, 1 nothing
  in common.
- The threshold comes from the stated rate of false alarms: sqrt(ln(e · k / α) / 2 · (1/n + 1/m)), the two-sample form
  of the Dvoretzky–Kiefer–Wolfowitz inequality with the constant e (Wei & Dudley 2012), which needs no large samples;
  k categories share α (Bonferroni). Bins can only make the difference smaller.
- α is the stated number of false alarms a year, shared among all comparisons of that year at the station. By
  linearity of expectation this holds though all comparisons share one reference.
- What is too small to matter (`MIN_DISTANCE`) is no drift, however surely it is there.
- Drift is raised by two comparisons in a row and cleared by two; its beginning is the first of the two.
- The rate holds for decisions that are independent; where so many in a row show the same thing, `repeat` says so.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

Against = Literal["bundle", "first_week"]
Kind = Literal["data", "data_reaching_decisions", "concept", "both"]

LOOKS_A_YEAR = 8766
"""Hours."""
MIN_DISTANCE = 0.1
MIN_N = 50
"""Independent decisions in a comparison; with fewer no distance would reach the threshold."""
IN_A_ROW = 2
_STRENGTHS = ((0.2, "slightly"), (0.4, "clearly"), (0.7, "strongly"), (math.inf, "completely"))


@dataclass(frozen=True)
class Comparison:
    """One comparison of an hour or a day with its reference."""

    distance: float
    threshold: float
    n: int
    m: int
    where: int | str
    """The bin whose lower edge, or the category, at which the difference is largest."""
    gained: bool
    """Whether the sample has more there (of a metric: lies higher)."""

    @property
    def differs(self) -> bool:
        return self.distance >= max(self.threshold, MIN_DISTANCE)


@dataclass(frozen=True)
class State:
    """What is known of one stream."""

    drifting: bool = False
    agreeing: int = 0
    since_ms: int | None = None
    began_ms: int | None = None
    """Start of the first comparison in a row that differs, while it is not yet drift."""
    looked_through_ms: int = 0


def alpha_of(false_alarms_per_year: float, streams: int) -> float:
    """Return the probability of a false alarm that one comparison may have."""
    return min(false_alarms_per_year / (LOOKS_A_YEAR * max(streams, 1)), 0.5)


def threshold(n: float, m: float, alpha: float, categories: int = 1) -> float:
    """Return the distance that two samples of n and m independent values reach with probability α at most."""
    return math.sqrt(math.log(math.e * categories / alpha) / 2 * (1 / n + 1 / m))


def compare_bins(now: Sequence[int], then: Sequence[int], alpha: float, repeat: float = 1.0) -> Comparison | None:
    """Compare counts over the same ordered bins; None where either holds too little."""
    n, m = sum(now), sum(then)
    if len(now) != len(then) or n / repeat < MIN_N or m < MIN_N:
        return None
    differences = [a / n - b / m for a, b in zip(accumulate(now), accumulate(then), strict=True)]
    where = max(range(len(differences)), key=lambda index: abs(differences[index]))
    least = threshold(n / repeat, m, alpha)
    return Comparison(abs(differences[where]), least, n, m, where, gained=differences[where] < 0)


def compare_categories(
    now: Mapping[str, int], then: Mapping[str, int], alpha: float, repeat: float = 1.0
) -> Comparison | None:
    """Compare counts by category; None where either holds too little."""
    n, m, names = sum(now.values()), sum(then.values()), sorted({*now, *then})
    if n / repeat < MIN_N or m < MIN_N:
        return None
    differences = {name: now.get(name, 0) / n - then.get(name, 0) / m for name in names}
    # Of two categories, one gains what the other loses: the one that comes more often is named.
    where = max(names, key=lambda name: (round(abs(differences[name]), 9), differences[name]))
    least = threshold(n / repeat, m, alpha, len(names))
    return Comparison(abs(differences[where]), least, n, m, where, gained=differences[where] > 0)


def step(state: State, comparison: Comparison, hour_ms: int) -> State:
    """Return the state after the comparison of the hour that began at this moment."""
    looked = replace(state, looked_through_ms=hour_ms)
    if comparison.differs == state.drifting:
        return replace(looked, agreeing=0, began_ms=None)
    began_ms = hour_ms if state.agreeing == 0 else state.began_ms
    if state.agreeing + 1 < IN_A_ROW:
        return replace(looked, agreeing=state.agreeing + 1, began_ms=began_ms)
    since_ms = began_ms if comparison.differs else None
    return replace(looked, drifting=comparison.differs, agreeing=0, since_ms=since_ms, began_ms=None)


def strength(distance: float) -> str:
    """Return how far something has moved in a word."""
    return next(word for most, word in _STRENGTHS if distance < most)


def median(edges: Sequence[float], counts: Sequence[int]) -> float:
    """Return the middle of a histogram, values taken as even within a bin, the open ones at their edge."""
    half, below = sum(counts) / 2, 0
    for index, count in enumerate(counts):
        if count and below + count >= half:
            if index in (0, len(edges)):
                return edges[min(index, len(edges) - 1)]
            return edges[index - 1] + (edges[index] - edges[index - 1]) * (half - below) / count
        below += count
    return edges[-1]


def in_words(metric: str, comparison: Comparison, against: Against, medians: tuple[float, float] | None) -> str:
    """Return what has moved, which way and how far, as a sentence for people."""
    then = "the bundle's reference" if against == "bundle" else "its own first week"
    far = f"distance {comparison.distance:.2f}, alarm from {max(comparison.threshold, MIN_DISTANCE):.2f}"
    moved = strength(comparison.distance)
    if medians is None:
        more = "more" if comparison.gained else "less"
        return f"{metric}: {comparison.where} comes {moved} {more} often than in {then} ({far})"
    way = "higher" if comparison.gained else "lower"
    shown = f"median {medians[0]:.3g}, was {medians[1]:.3g}"
    return f"{metric} lies {moved} {way} than in {then}: {shown} ({far})"


def kind_of(*, inputs: bool, outputs: bool, errors: bool | None) -> Kind | None:
    """Return which drift it is, or None for none.

    Args:
        inputs: whether what is seen or heard has moved.
        outputs: whether deferrals, labels or confidence have moved.
        errors: whether people contradict it more often than before; None if they have not looked at enough.
    """
    if inputs:
        return "both" if errors else "data_reaching_decisions" if outputs else "data"
    return "concept" if outputs or errors else None


KIND_WORDS: dict[Kind, str] = {
    "data": "data drift: the inputs moved, deferrals and labels did not",
    "data_reaching_decisions": "data drift that reaches the decisions: inputs moved, and deferrals or labels with them",
    "concept": "concept drift: the inputs are as they were, what is decided of them or how often it is right is not",
    "both": "data drift and concept drift: inputs moved, and people contradict the decisions more often",
}


def totals(parts: Sequence[tuple[Any, int]]) -> Counter[Any]:
    """Return pairs of bin and count as counts."""
    found: Counter[Any] = Counter()
    for name, count in parts:
        found[name] += count
    return found
