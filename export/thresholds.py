"""Chooses the thresholds beyond which a device decides alone, so that a stated share of errors is not exceeded: pure.

Learn-then-Test (Angelopoulos, Bates, Candès, Jordan, Lei 2021, arXiv:2110.01052): a threshold is taken only if the
hypothesis "its share of wrong decisions is above alpha" is rejected by the exact binomial test (the test behind the
bound of Clopper and Pearson, Biometrika 26, 1934). Thresholds are tested in a fixed order that an independent pilot
sample has chosen, each at the full level, and testing ends at the first that is not rejected ("fixed-sequence
testing"), so looking at many costs nothing.

Rules:
- The pilot shares no unit with the sample; it may be used for the calibration, the sample may not.
- A unit (part, speaker) counts once: decided if any of its examples is, wrong if any of those decided is wrong.
- Inspection tests two sides, each at delta / 2, so both bounds hold together with confidence 1 − delta.
- A side that cannot be proven decides nothing by itself, and the note says how many units it would take.
- The bounds hold for parts that come as those of the sample did: same lights, same share of defects.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import Guarantee, InspectPolicy, KeywordPolicy, Policy

PASS_NOTHING = -1.0
"""Below every defect score."""
DIVERT_NOTHING = 2.0
"""Above every defect score."""
ACCEPT_NOTHING = 2.0
"""Above every probability."""
METHOD = "learn-then-test, fixed sequence, exact binomial"
METHOD_FIXED = "exact binomial at thresholds fixed beforehand"

_GRID = np.round(1 / (1 + np.exp(-np.arange(-9.0, 9.01, 0.1))), 6)
"""Thresholds that are tried: even steps of 0.1 in log-odds, from 0.0001 to 0.9999."""


@dataclass(frozen=True)
class Sample:
    """Scores with the truth: `score` (n,) in 0…1, `event` (n,) bool, `unit` (n,) or None if each stands alone.

    For inspection `score` is the defect score and `event` says that the part is defective. For keywords `score` is
    the probability of the likeliest label and `event` says that it is the right one.
    """

    score: NDArray[np.float64]
    event: NDArray[np.bool_]
    unit: NDArray[np.generic] | None = None

    def flipped(self) -> "Sample":
        """Return the sample seen from the other end: high scores become low ones, and the event its opposite."""
        return Sample(1.0 - self.score, ~self.event, self.unit)

    def units(self) -> NDArray[np.intp]:
        """Return the number of each example's unit, counted from 0."""
        return self._units

    @cached_property
    def _units(self) -> NDArray[np.intp]:
        if self.unit is None:
            return np.arange(len(self.score))
        return np.asarray(np.unique(self.unit, return_inverse=True)[1], np.intp)


@dataclass(frozen=True)
class Side:
    """The outcome of one side: the thresholds (ascending) that were proven, and why not more."""

    proven: list[float]
    decided: int
    """Units decided at the outermost proven threshold."""
    note: str

    @property
    def outermost(self) -> float | None:
        return self.proven[-1] if self.proven else None


def choose_inspect(
    pilot: Sample,
    sample: Sample,
    *,
    alpha_escape: float,
    alpha_false_reject: float,
    delta: float,
    unit: str,
    always_defer: tuple[float, float] | None = None,
    fixed: tuple[float, float] | None = None,
) -> InspectPolicy:
    """Return thresholds on the defect score, with their guarantee.

    Args:
        pilot: orders the thresholds.
        sample: proves them.
        alpha_escape: bound on the share of defective among units that pass.
        alpha_false_reject: bound on the share of good among units that are diverted.
        delta: probability that one of the bounds does not hold.
        unit: the name of a unit, singular.
        always_defer: defect scores between these two go to a person even where the bounds would allow more; chosen
            before looking at the data.
        fixed: (pass_max, divert_min) chosen without the sample, which then only proves them, each side for itself;
            for samples too small to search in. Neither the pilot nor `always_defer` is used.
    """
    pass_limit, divert_limit = (1.0, 1.0) if always_defer is None else (always_defer[0], 1.0 - always_defer[1])
    if fixed is None:
        passing = prove(pilot, sample, alpha_escape, delta / 2, pass_limit)
        diverting = prove(pilot.flipped(), sample.flipped(), alpha_false_reject, delta / 2, divert_limit)
    else:
        passing = prove_at(fixed[0], sample, alpha_escape, delta / 2)
        diverting = prove_at(1.0 - fixed[1], sample.flipped(), alpha_false_reject, delta / 2)
    pass_max, divert_min = _meet(passing, diverting)
    decided = (sample.score <= pass_max) | (sample.score >= divert_min)
    share = float(np.mean(sample.event)) if len(sample.event) else 0.0
    notes = [f"passing: {passing.note}", f"diverting: {diverting.note}", f"{share:.0%} of the sample is defective"]
    return InspectPolicy(
        pass_max=pass_max,
        divert_min=divert_min,
        guarantee=Guarantee(
            method=METHOD if fixed is None else METHOD_FIXED,
            alpha_escape=alpha_escape,
            alpha_false_reject=alpha_false_reject,
            delta=delta,
            n=_count(sample),
            unit=unit,
            coverage=_share(decided),
            note="; ".join(notes),
        ),
    )


def choose_keyword(
    pilot: Sample, sample: Sample, *, alpha_error: float, delta: float, unit: str, accept_at_least: float = 0.0
) -> KeywordPolicy:
    """Return the threshold on the likeliest label's probability, with its guarantee.

    Args:
        pilot: orders the thresholds.
        sample: proves them.
        alpha_error: bound on the share of wrong among units that are accepted.
        delta: probability that the bound does not hold.
        unit: the name of a unit, singular.
        accept_at_least: nothing less probable is accepted, whatever the bound would allow; chosen without the sample.
    """
    # Seen from the other end, accepting is passing and a wrong word is the defect.
    accepting = prove(pilot.flipped(), sample.flipped(), alpha_error, delta, 1.0 - accept_at_least)
    accept_min = ACCEPT_NOTHING if accepting.outermost is None else round(1.0 - accepting.outermost, 6)
    return KeywordPolicy(
        accept_min=accept_min,
        guarantee=Guarantee(
            method=METHOD,
            alpha_error=alpha_error,
            delta=delta,
            n=_count(sample),
            unit=unit,
            coverage=_share(sample.score >= accept_min),
            note=f"accepting: {accepting.note}",
        ),
    )


def with_notes(policy: Policy, notes: list[str]) -> Policy:
    """Return the policy with notes added to those of its guarantee."""
    if policy.guarantee is None or not notes:
        return policy
    note = "; ".join([policy.guarantee.note, *notes])
    return policy.model_copy(update={"guarantee": policy.guarantee.model_copy(update={"note": note})})


def prove(pilot: Sample, sample: Sample, alpha: float, delta: float, limit: float = 1.0) -> Side:
    """Return the thresholds t ≤ limit for which P(event | score ≤ t) ≤ alpha is proven with confidence 1 − delta.

    The pilot says where to begin (where the proof looks easiest); from there thresholds rise until one fails.
    """
    needed = units_needed(alpha, delta)
    available = _count(sample)
    if available < needed:
        return Side([], 0, f"nothing, {available} units are too few: at least {needed} must be decided without error")
    grid = [float(threshold) for threshold in _GRID if threshold <= limit + 1e-9]
    start = _start(pilot, grid, available, alpha)
    if start is None:
        return Side([], 0, f"nothing, the pilot sample gives no hope of {alpha:.2%} at any threshold")
    proven: list[float] = []
    decided = 0
    for threshold in grid[start:]:
        count, wrong = _tally(sample, threshold)
        if binomial_cdf(wrong, count, alpha) > delta:
            reason = f"{wrong} wrong of {count} at {threshold:.4g} is not enough for {alpha:.2%}"
            if not proven:
                return Side([], 0, f"nothing, {reason}: without error {needed} would be")
            return Side(proven, decided, f"{decided} units; ended where {reason}")
        proven.append(threshold)
        decided = count
    ended = "every threshold is proven" if limit >= 1 else f"proven, and held back at {limit:.4g}"
    return Side(proven, decided, f"{decided} units; {ended}")


def prove_at(threshold: float, sample: Sample, alpha: float, delta: float) -> Side:
    """Return the threshold as proven, or nothing: P(event | score ≤ threshold) ≤ alpha with confidence 1 − delta."""
    count, wrong = _tally(sample, threshold)
    found = f"{wrong} wrong of {count} at {threshold:.4g}"
    if binomial_cdf(wrong, count, alpha) > delta:
        return Side([], 0, f"nothing, {found} is not enough for {alpha:.2%}")
    return Side([threshold], count, f"{count} units; {found} proves {upper_bound(wrong, count, delta):.2%}")


def units_needed(alpha: float, delta: float) -> int:
    """Return how many decided units without a single error prove the bound: (1 − alpha)^n ≤ delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def binomial_cdf(wrong: int, count: int, alpha: float) -> float:
    """Return P(X ≤ wrong) for X ~ Binomial(count, alpha): the p-value of "the share of errors is above alpha"."""
    if wrong >= count:
        return 1.0
    log_alpha, log_rest = math.log(alpha), math.log1p(-alpha)
    total = 0.0
    for k in range(wrong + 1):
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(ways + k * log_alpha + (count - k) * log_rest)
    return min(total, 1.0)


def upper_bound(wrong: int, count: int, delta: float) -> float:
    """Return the upper bound of Clopper and Pearson on a share, with confidence 1 − delta."""
    low, high = (wrong / count if count else 0.0), 1.0
    if wrong >= count:
        return 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_cdf(wrong, count, middle) > delta else (low, middle)
    return high


def _start(pilot: Sample, grid: list[float], available: int, alpha: float) -> int | None:
    """Return the grid index with the smallest p-value to be expected of the sample, at most the one at 0.5.

    The pilot's share of errors is smoothed by half an error, since none seen is not none there.
    """
    if not len(pilot.score):
        return None
    scale = available / _count(pilot)
    best, best_p = None, 1.0
    for index, threshold in enumerate(item for item in grid if item <= 0.5):
        count, wrong = _tally(pilot, threshold)
        if not count:
            continue
        expected = round(count * scale)
        p = binomial_cdf(math.ceil((wrong + 0.5) / (count + 0.5) * expected), expected, alpha)
        if p < best_p:
            best, best_p = index, p
    return best


def _tally(sample: Sample, threshold: float) -> tuple[int, int]:
    """Return (units decided, units wrong) at score ≤ threshold."""
    units = sample.units()
    decided = sample.score <= threshold
    return _distinct(units[decided]), _distinct(units[decided & sample.event])


def _meet(passing: Side, diverting: Side) -> tuple[float, float]:
    """Return (pass_max, divert_min); where both sides reach beyond each other, one threshold both have proven.

    The sides begin at 0.5 or further out, so the thresholds that both have proven are never none.
    """
    pass_max = PASS_NOTHING if passing.outermost is None else passing.outermost
    divert_min = DIVERT_NOTHING if diverting.outermost is None else round(1.0 - diverting.outermost, 6)
    if pass_max < divert_min:
        return pass_max, divert_min
    low = max(passing.proven[0], divert_min)
    high = min(round(1.0 - diverting.proven[0], 6), pass_max)
    middle = min(max(0.5, low), high)
    return middle, middle


def _count(sample: Sample) -> int:
    return _distinct(sample.units())


def _distinct(units: NDArray[np.intp]) -> int:
    # For numbers from 0 up this takes a tenth of the time of `np.unique`, and thresholds are tried by the hundred.
    return int(np.count_nonzero(np.bincount(units)))


def _share(decided: NDArray[np.bool_]) -> float:
    return round(float(np.mean(decided)), 4) if len(decided) else 0.0
