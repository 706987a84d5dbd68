"""What a bundle's judgements on labelled examples show: figures per class and slice, curves, and what is missing. Pure.

Rules:
- Every share has its interval, with groups as the unit.
- Curves are kept as counts in bins, so that a page can draw them from the manifest alone.
- Advice on more parts is a plan, not a promise: the promise is the guarantee's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import GOOD_LABEL, InspectPolicy, Policy
from export import roc
from export.intervals import share
from export.thresholds import binomial_cdf, units_needed, upper_bound

_BINS = 20
_RELIABILITY_BINS = 10
_MOST_UNITS = 200_000
_AREA_DRAWS, _AREA_SEED = 1000, 0


@dataclass(frozen=True)
class Judged:
    """Examples with their truth and calibrated probabilities."""

    labels: list[str]
    truth: NDArray[np.intp]
    chances: NDArray[np.float64]
    """(n, labels); a row of NaN is an input that the gate refused."""
    groups: NDArray[np.generic]
    policy: Policy
    slices: Sequence[dict[str, str]]

    @property
    def refused(self) -> NDArray[np.bool_]:
        return np.asarray(np.isnan(self.chances).any(1))

    @property
    def inspects(self) -> bool:
        return isinstance(self.policy, InspectPolicy)

    def defect_score(self) -> NDArray[np.float64]:
        """Return 1 − p(good), (n,)."""
        return np.asarray(1.0 - self.chances[:, self.labels.index(GOOD_LABEL)])

    def defective(self) -> NDArray[np.bool_]:
        """Return whether the truth is not `good`, (n,)."""
        return np.asarray(self.truth != self.labels.index(GOOD_LABEL))


def hits(judged: Judged, metric: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (which examples count, which of them are hits) for a metric.

    Metrics: accuracy, recall (accuracy among examples of a label), coverage, deferred, wrong_share, escape_share,
    false_reject_share, miss_share (defective that passed), overkill_share (good that were diverted).

    Raises:
        KeyError: there is no such metric.
    """
    counted = np.ones(len(judged.truth), bool)
    top = np.where(judged.refused, -1, np.nan_to_num(judged.chances).argmax(1))
    right = top == judged.truth
    if judged.inspects:
        assert isinstance(judged.policy, InspectPolicy)
        score, bad = judged.defect_score(), judged.defective()
        passed = score <= judged.policy.pass_max
        for label, most in judged.policy.label_pass_max.items():
            passed = passed & (judged.chances[:, judged.labels.index(label)] <= most)
        diverted = (score >= judged.policy.divert_min) & ~(score <= judged.policy.pass_max)
        decided, wrong = passed | diverted, (passed & bad) | (diverted & ~bad)
        if metric in ("detection", "good_share"):
            return (bad, score >= 0.5) if metric == "detection" else (~bad, score < 0.5)
        sides = {
            "escape_share": (passed, bad),
            "false_reject_share": (diverted, ~bad),
            "miss_share": (bad, passed),
            "overkill_share": (~bad, diverted),
        }
        if metric in sides:
            return sides[metric]
    else:
        decided = np.nan_to_num(judged.chances).max(1) >= judged.policy.accept_min  # type: ignore[union-attr]
        wrong = decided & ~right
    return {
        "accuracy": (counted, right),
        "recall": (counted, right),
        "coverage": (counted, decided),
        "deferred": (counted, ~decided),
        "wrong_share": (decided, wrong),
    }[metric]


def measured(judged: Judged, metric: str, where: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Return a metric with its interval over the examples of `where`."""
    if metric == "auroc":
        return area(judged, where)
    counted, hit = hits(judged, metric)
    if where is not None:
        counted = counted & where
    return share(hit[counted], judged.groups[counted]).plain()


def figures(judged: Judged) -> dict[str, Any]:
    """Return all figures: the whole, per class, per slice."""
    sides = ("escape_share", "false_reject_share", "miss_share", "overkill_share") if judged.inspects else ()
    names = ("accuracy", "coverage", "wrong_share", *sides)
    whole = {name: measured(judged, name) for name in names}
    classes = {
        label: {name: measured(judged, name, judged.truth == at) for name in ("recall", "coverage", "wrong_share")}
        for at, label in enumerate(judged.labels)
    }
    slices: dict[str, dict[str, Any]] = {}
    for column in sorted({name for row in judged.slices for name in row}):
        values = np.array([row.get(column, "") for row in judged.slices])
        found = sorted(set(values) - {""})
        if len(found) <= 50:
            slices[column] = {
                value: {
                    name: measured(judged, name, values == value) for name in ("accuracy", "coverage", "wrong_share")
                }
                for value in found
            }
    return {"whole": whole, "auroc": auroc(judged), "classes": classes, "slices": slices}


def area(judged: Judged, where: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Return the area under the curve of the defect score over `where`, with its interval: groups are drawn again."""
    kept = ~judged.refused if where is None else where & ~judged.refused
    nothing = {"value": None, "low": 0.0, "high": 1.0, "count": 0, "total": 0, "groups": 0}
    if not judged.inspects or len(set(judged.defective()[kept])) < 2:
        return nothing
    score, bad = judged.defect_score()[kept], judged.defective()[kept]
    numbers = np.unique(judged.groups[kept], return_inverse=True)[1]
    many = int(numbers.max()) + 1
    ranked = roc.Ranked(bad, score)
    rng = np.random.default_rng(_AREA_SEED)
    drawn = [ranked.area(rng.multinomial(many, np.full(many, 1 / many))[numbers]) for _ in range(_AREA_DRAWS)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = ranked.area(np.ones(len(score)))
    found = {"value": value, "low": float(low), "high": float(high)}
    counts = {"count": int(bad.sum()), "total": len(score), "groups": many}
    return {**{name: round(number, 4) for name, number in found.items()}, **counts}


def auroc(judged: Judged) -> float | None:
    """Return the area under the curve of the defect score, None for keywords or where there is one class."""
    if not judged.inspects:
        return None
    kept, bad = ~judged.refused, judged.defective()
    if len(set(bad[kept])) < 2:
        return None
    return round(roc.auroc(bad[kept], judged.defect_score()[kept]), 4)


def curves(judged: Judged) -> dict[str, Any]:
    """Return histograms of the scores and the reliability of the probabilities, as counts."""
    kept = ~judged.refused
    chances, truth = judged.chances[kept], judged.truth[kept]
    confidence, right = chances.max(1), chances.argmax(1) == truth
    places = np.minimum((confidence * _RELIABILITY_BINS).astype(int), _RELIABILITY_BINS - 1)
    reliability = [
        {
            "count": int(np.sum(places == b)),
            "confidence": round(float(confidence[places == b].mean()), 4),
            "right": round(float(right[places == b].mean()), 4),
        }
        for b in range(_RELIABILITY_BINS)
        if np.any(places == b)
    ]
    if judged.inspects:
        score, bad = judged.defect_score()[kept], judged.defective()[kept]
        sides = {"good": score[~bad], "defective": score[bad]}
    else:
        sides = {"right": confidence[right], "wrong": confidence[~right]}
    histogram = {name: np.histogram(values, _BINS, (0, 1))[0].tolist() for name, values in sides.items()}
    return {"reliability": reliability, "scores": histogram, "confusion": _confusion(judged)}


def advice(judged: Judged, alpha: float, delta: float, unit: str, share_of_all: float) -> list[str]:
    """Return in plain words what it would take to decide more.

    Args:
        judged: the examples that proved the thresholds.
        alpha: the bound asked for.
        delta: its confidence.
        unit: the name of a unit, singular.
        share_of_all: of the labelled data that proves thresholds; more data is shared out the same way.
    """
    if not judged.inspects:
        accept = judged.chances.max(1)
        right = judged.chances.argmax(1) == judged.truth
        return _side(1 - accept, ~right, judged, alpha, delta, f"{unit}s", "accept", share_of_all)
    score, bad = judged.defect_score(), judged.defective()
    passing = _side(score, bad, judged, alpha, delta / 2, f"good {unit}s", "pass", share_of_all)
    return passing + _side(1 - score, ~bad, judged, alpha, delta / 2, f"defective {unit}s", "divert", share_of_all)


def _side(
    score: NDArray[np.float64],
    event: NDArray[np.bool_],
    judged: Judged,
    alpha: float,
    delta: float,
    what: str,
    verb: str,
    share_of_all: float,
) -> list[str]:
    """Say what one side could promise with the best threshold in hindsight, and how many more it would take."""
    tried = []
    for threshold in np.quantile(score, np.linspace(0.02, 1, 50)):
        decided = score <= threshold
        units = len(np.unique(judged.groups[decided]))
        wrong = len(np.unique(judged.groups[decided & event]))
        if units and wrong < units:
            tried.append((upper_bound(wrong, units, delta), units, wrong))
    if not tried:
        return [f"{verb}: no example can be decided yet"]
    bound, units, wrong = min(tried)
    if bound <= alpha:
        return [f"{verb}: enough {what} for {alpha:.1%}"]
    needed = _needed(alpha, delta, wrong / units)
    now = f"{verb}: these {what} would do for about {bound:.1%}, not for {alpha:.1%}"
    if needed is None:
        return [
            f"{now}; {wrong} of the {units} surest are wrong, so more of the same will not do: mend labels or pictures"
        ]
    more = max(1, round((needed - units) / max(share_of_all, 1e-6)))
    return [f"{now}: about {more} more {what} are needed, if they are judged as well as these"]


def _needed(alpha: float, delta: float, error: float) -> int | None:
    """Return how many decided units prove alpha if this share of them is wrong; None if no number does."""
    if error >= alpha:
        return None
    low, high = units_needed(alpha, delta), _MOST_UNITS
    while low < high:
        middle = (low + high) // 2
        proven = binomial_cdf(int(np.ceil(error * middle)), middle, alpha) <= delta
        low, high = (low, middle) if proven else (middle + 1, high)
    return low if low < _MOST_UNITS else None


def _confusion(judged: Judged) -> list[list[int]]:
    """Return counts, a row per true label, a column per named one."""
    kept = ~judged.refused
    count = len(judged.labels)
    table = np.zeros((count, count), int)
    np.add.at(table, (judged.truth[kept], judged.chances[kept].argmax(1)), 1)
    return [[int(value) for value in row] for row in table]
