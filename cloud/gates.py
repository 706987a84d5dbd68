"""The three-valued gate: pass, fail or need more evidence, whenever and however often one looks; pure.

With harm = rate of the candidate − rate of the control (the other way round where a lower rate is worse):
- **fail**: "harm ≤ tolerance" is rejected at the gate's share of the plan's error (Bonferroni over all gates of all
  stages: any one of them takes the version back).
- **pass**: "harm ≥ margin" is rejected at the plan's error (no correction: the version goes on only when every gate
  passes, so one that is bad in any metric gets by with at most this probability).
- Both (the harm surely lies between the two): fail. Neither: need more. No data: never a pass.

Rules:
- Rejecting is done by `eprocess`, so looking every second costs nothing.
- What is assumed: within a stage the rates of an arm do not depend on when one looks. The control runs at the same
  time, so that weather and shifts hit both arms; but a box that differs from its control for reasons of its own
  looks like a difference of versions. Small fleets want a tolerance as large as the differences between boxes.
- Reviewed labels count by inverse sampling probability: decisions audited with one probability are a group, which
  counts by its share of all decisions that might have been audited, in both arms together. What is never audited
  is not known and not guessed.
- `crashes`, `drift` and `memory` count windows of time and devices, not decisions; those of one device resemble each
  other, so that a small fleet wants a wide margin there.
"""

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud import eprocess

Metric = Literal[
    "deferral",
    "errors",
    "deadline",
    "latency",
    "latency_p99",
    "wrong",
    "escape",
    "false_reject",
    "disagreement",
    "crashes",
    "drift",
    "memory",
]
Verdict = Literal["pass", "fail", "need_more"]

TOLERANCE_OF_MARGIN = 0.25
"""Share of the margin that is tolerated unless said otherwise: a difference too small to matter must not take a
version back, and whatever lies between tolerance and margin is still decided."""
PRIOR_WEIGHT = 10.0
"""The expected rate counts as much as this many cases: it helps at the start and is soon outvoted."""
LONGEST_S = 10 * 365.25 * 86_400
"""A projection beyond ten years is no date."""
LOOK_AHEAD = np.geomspace(1.0, 1e7, 100)
"""Further cases of the larger arm at which the projection looks, each 18 % beyond the last."""

EXPECTED_RATE: dict[Metric, float] = {
    "deferral": 0.1,
    "errors": 0.001,
    "deadline": 0.001,
    "latency": 0.01,
    "latency_p99": 0.01,
    "wrong": 0.02,
    "escape": 0.02,
    "false_reject": 0.02,
    "disagreement": 0.02,
    "crashes": 0.001,
    "drift": 0.02,
    "memory": 0.01,
}
"""Where the prior looks first; a wrong guess costs time, not validity."""
BAD_WORDS: dict[Metric, str] = {
    "deferral": "deferred",
    "errors": "failed",
    "deadline": "past the deadline",
    "latency": "too slow",
    "latency_p99": "slower than the old version's p99",
    "wrong": "wrong",
    "escape": "escaped",
    "false_reject": "rejected though good",
    "disagreement": "decided otherwise",
    "crashes": "with a crash",
    "drift": "with drifted input",
    "memory": "over their memory",
}
CASE_WORDS: dict[Metric, str] = {
    "deferral": "decisions",
    "errors": "decisions",
    "deadline": "decisions",
    "latency": "decisions",
    "latency_p99": "decisions",
    "wrong": "reviewed audits",
    "escape": "reviewed audits of passed parts",
    "false_reject": "reviewed audits of diverted parts",
    "disagreement": "inputs that both judged",
    "crashes": "windows of telemetry",
    "drift": "windows of telemetry",
    "memory": "devices",
}


class GateSpec(BaseModel):
    """One metric and what is asked of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: Metric
    margin: float = Field(gt=0, le=1)
    """Passes when the candidate's rate is surely less than this above the control's."""
    tolerance: float | None = Field(default=None, ge=0, lt=1)
    """Fails when it is surely more than this above; a quarter of the margin unless said."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Share of the plan's error probability, relative to the other gates: a heavier gate fails sooner."""
    expected_rate: float | None = Field(default=None, gt=0, lt=1)
    """The usual rate of bad cases, from experience before the rollout."""
    worse: Literal["higher", "lower"] = "higher"
    error: float | None = Field(default=None, gt=0, lt=0.5)
    """Its own part of the plan's error instead of a share by weight."""
    limit_ms: float | None = Field(default=None, gt=0)
    """For `latency`: a decision that takes longer is too slow."""
    limit_mb: float | None = Field(default=None, gt=0)
    """For `memory`: a device whose daemon and children take more has too little left."""

    @model_validator(mode="after")
    def _consistent(self) -> "GateSpec":
        problems = []
        for metric, key in (("latency", "limit_ms"), ("memory", "limit_mb")):
            if (self.metric == metric) != (getattr(self, key) is not None):
                problems.append(f"{key} belongs to the metric {metric}, which cannot do without")
        if self.tolerated >= self.margin:
            problems.append(f"tolerance {self.tolerated} must be below margin {self.margin}")
        if self.paired and self.worse == "lower":
            problems.append("a disagreement is worse when it is higher")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def paired(self) -> bool:
        """Whether both versions judge the same input, so that there is one stream and no control."""
        return self.metric == "disagreement"

    @property
    def key(self) -> str:
        """Name of the gate within its stage."""
        if self.limit_ms is not None:
            return f"{self.metric}_over_{self.limit_ms:g}_ms"
        return self.metric if self.limit_mb is None else f"{self.metric}_over_{self.limit_mb:g}_mb"

    @property
    def tolerated(self) -> float:
        return self.margin * TOLERANCE_OF_MARGIN if self.tolerance is None else self.tolerance

    @property
    def prior(self) -> eprocess.Prior:
        """Half of it near the expected rate, half anywhere (Jeffreys)."""
        rate = self.expected_rate or EXPECTED_RATE[self.metric]
        rate = rate if self.worse == "higher" else 1 - rate
        return (0.5, PRIOR_WEIGHT * rate, PRIOR_WEIGHT * (1 - rate)), (0.5, 0.5, 0.5)


class Group(BaseModel):
    """Cases of one arm that were drawn with one probability."""

    model_config = ConfigDict(frozen=True)

    probability: float
    of: int = Field(ge=0)
    """How many they were drawn from."""
    bad: int = Field(ge=0)
    n: int = Field(ge=0)


class Counts(BaseModel):
    """Bad cases among all cases of one arm."""

    model_config = ConfigDict(frozen=True)

    bad: int = Field(default=0, ge=0)
    n: int = Field(default=0, ge=0)
    groups: tuple[Group, ...] = ()
    """Where cases are drawn: by their probability."""

    @model_validator(mode="after")
    def _possible(self) -> "Counts":
        if self.bad > self.n:
            raise ValueError(f"bad {self.bad} must not exceed n {self.n}")
        return self

    @property
    def rate(self) -> float | None:
        """Share of the bad cases, by inverse sampling probability; groups without a case are left out."""
        seen = [group for group in self.groups if group.n]
        if not seen:
            return self.bad / self.n if self.n else None
        return sum(group.of * group.bad / group.n for group in seen) / max(sum(group.of for group in seen), 1)

    @property
    def turned(self) -> "Counts":
        """The same with good and bad exchanged."""
        groups = tuple(group.model_copy(update={"bad": group.n - group.bad}) for group in self.groups)
        return Counts(bad=self.n - self.bad, n=self.n, groups=groups)


class Missing(BaseModel):
    """About how many more cases until an answer, if the rates stay as they look."""

    model_config = ConfigDict(frozen=True)

    candidate: int
    control: int
    eta_s: float | None
    """Seconds until then at the present rate; None when nothing has come yet."""
    until_ms: int | None = None
    """Wall clock of the cloud (Unix milliseconds) at that time; None when it is not known."""


class GateAnswer(BaseModel):
    """What a gate says, the evidence that it rests on and the evidence that is missing."""

    model_config = ConfigDict(frozen=True)

    gate: str
    verdict: Verdict
    candidate: Counts
    control: Counts
    concurrent: bool
    """False where no control group is left, so that the old version's decisions from before are compared with."""
    harm: float | None
    """Estimated difference of the rates, positive when the candidate is worse."""
    low: float
    """The harm is above this, but for the error of failing."""
    high: float
    """The harm is below this, but for the error of passing."""
    margin: float
    tolerance: float
    missing: Missing | None = None
    """None when the answer is given, and when it is out of reach."""
    words: str
    """All of it for a person."""


def judge(
    spec: GateSpec,
    candidate: Counts,
    control: Counts,
    *,
    fail_error: float,
    pass_error: float,
    elapsed_s: float = 0.0,
    concurrent: bool = True,
    note: str = "",
    now_ms: int | None = None,
    left_s: float = math.inf,
) -> GateAnswer:
    """Return the gate's answer to the counts of both arms.

    Args:
        spec: the gate.
        candidate: cases under the new version; of a paired gate, inputs that both judged.
        control: cases under the old one; not looked at by a paired gate.
        fail_error: largest probability of ever failing a version whose harm is within the tolerance.
        pass_error: largest probability of ever passing one whose harm is the margin or more.
        elapsed_s: how long the cases took to come, for the projection; 0 when not known.
        concurrent: whether the control's cases come at the same time as the candidate's.
        note: what keeps evidence from coming, for a person.
        now_ms: wall clock, so that the answer says until when it waits.
        left_s: how long the stage may still last; what comes later is too late, and the answer says so.
    """
    t, c = (candidate, control) if spec.worse == "higher" else (candidate.turned, control.turned)
    evidence = _evidence(spec, t, c)
    harm = float(evidence.at_most(np.asarray(spec.tolerated)))
    safety = float(evidence.at_least(np.asarray(spec.margin)))
    verdict = verdict_of(harm, safety, fail_error, pass_error)
    low, high = eprocess.bounds_where(evidence.at_most, evidence.at_least, fail_error, pass_error)
    missing = None
    if verdict == "need_more":
        missing = _missing(spec, t, c, fail_error, pass_error, elapsed_s, concurrent=concurrent)
    answer = GateAnswer(
        gate=spec.key,
        verdict=verdict,
        candidate=candidate,
        control=control,
        concurrent=concurrent,
        harm=evidence.harm,
        low=low,
        high=high,
        margin=spec.margin,
        tolerance=spec.tolerated,
        missing=missing,
        words="",
    )
    if missing is not None and missing.eta_s is not None and now_ms is not None:
        until_ms = now_ms + int(1000 * min(missing.eta_s, LONGEST_S))
        answer = answer.model_copy(update={"missing": missing.model_copy(update={"until_ms": until_ms})})
    said = _words(spec, answer)
    if missing is not None and (missing.eta_s or 0.0) > left_s:
        said += f", but the stage ends in {span_words(left_s)}"
    return answer.model_copy(update={"words": f"{said}; {note}" if note and verdict == "need_more" else said})


class _Evidence(NamedTuple):
    """What speaks against a difference's being at most, or at least, so much; and how it looks now."""

    at_most: eprocess.Test
    at_least: eprocess.Test
    harm: float | None


def _evidence(spec: GateSpec, t: Counts, c: Counts) -> _Evidence:
    prior = spec.prior
    if spec.paired:
        return _Evidence(
            lambda d: eprocess.one_at_most(t.bad, t.n, d, prior),
            lambda d: eprocess.one_at_least(t.bad, t.n, d, prior),
            t.rate,
        )
    table = _table(t, c)
    if table is None:
        return _Evidence(
            lambda d: eprocess.against_at_most(t.bad, t.n, c.bad, c.n, d, prior),
            lambda d: eprocess.against_at_least(t.bad, t.n, c.bad, c.n, d, prior),
            t.bad / t.n - c.bad / c.n if t.n and c.n else None,
        )
    x, n, y, m, share = table
    seen = (n > 0) & (m > 0)
    harms = share[seen] * (x[seen] / n[seen] - y[seen] / m[seen])
    return _Evidence(
        lambda d: eprocess.groups_at_most(x, n, y, m, share, d, prior),
        lambda d: eprocess.groups_at_least(x, n, y, m, share, d, prior),
        float(harms.sum() / share[seen].sum()) if seen.any() else None,
    )


def _table(t: Counts, c: Counts) -> tuple[NDArray[np.float64], ...] | None:
    """Return (bad, n) of the candidate, (bad, n) of the control and shares, of shape (groups,); None for one group."""
    probabilities = sorted({group.probability for group in (*t.groups, *c.groups)})
    if len(probabilities) < 2:
        return None
    rows = []
    for probability in probabilities:
        arms = [next((g for g in arm.groups if g.probability == probability), None) for arm in (t, c)]
        both = [value for group in arms for value in ((group.bad, group.n) if group else (0, 0))]
        rows.append([*both, sum(group.of for group in arms if group)])
    columns = np.asarray(rows, dtype=np.float64).T
    total = columns[4].sum()
    return None if total <= 0 else (*columns[:4], columns[4] / total)


def verdict_of(harm: float, safety: float, fail_error: float, pass_error: float) -> Verdict:
    """Return the verdict for the log e-processes against "harm ≤ tolerance" and "harm ≥ margin"; failing goes first."""
    if harm >= -math.log(fail_error):
        return "fail"
    return "pass" if safety >= -math.log(pass_error) else "need_more"


def _missing(
    spec: GateSpec, t: Counts, c: Counts, fail_error: float, pass_error: float, elapsed_s: float, *, concurrent: bool
) -> Missing | None:
    """Return the further cases after which the expected counts give an answer, or None if none ever do."""
    share_t, share_c = (t.n or c.n or 1, c.n or t.n or 1) if concurrent else (1, 0)
    more_t = LOOK_AHEAD * share_t / max(share_t, share_c)
    more_c = np.zeros_like(more_t) if spec.paired else LOOK_AHEAD * share_c / max(share_t, share_c)
    harm, safety = _projected(spec, t, c, more_t, more_c)
    answered = (harm >= -math.log(fail_error)) | (safety >= -math.log(pass_error))
    if not answered.any():
        return None
    first = int(np.argmax(answered))
    flow = t.n / elapsed_s if elapsed_s > 0 else 0.0
    eta_s = float(more_t[first]) / flow if flow > 0 else None
    return Missing(candidate=math.ceil(more_t[first]), control=math.ceil(more_c[first]), eta_s=eta_s)


def _projected(
    spec: GateSpec, t: Counts, c: Counts, more_t: NDArray[np.float64], more_c: NDArray[np.float64]
) -> tuple[Any, Any]:
    """Return both log e-processes after so many further cases of either arm, if the rates stay as they look."""
    usual, prior = spec.prior[0][1] / PRIOR_WEIGHT, spec.prior
    if not spec.paired and (table := _table(t, c)) is not None:
        x, n, y, m, share = table
        grown = []
        for bad, cases, total, more in ((x, n, t.n, more_t), (y, m, c.n, more_c)):
            further = more[:, None] * (cases / total if total else share)
            grown += [bad + further * (bad + usual) / (cases + 1), cases + further]
        x, n, y, m = grown
        harm = eprocess.groups_at_most(x, n, y, m, share, spec.tolerated, prior)
        return harm, eprocess.groups_at_least(x, n, y, m, share, spec.margin, prior)
    x_t = t.bad + more_t * (t.bad + usual) / (t.n + 1)
    if spec.paired:
        harm = eprocess.one_at_most(x_t, t.n + more_t, spec.tolerated, prior)
        return harm, eprocess.one_at_least(x_t, t.n + more_t, spec.margin, prior)
    x_c = c.bad + more_c * (c.bad + usual) / (c.n + 1)
    harm = eprocess.against_at_most(x_t, t.n + more_t, x_c, c.n + more_c, spec.tolerated, prior)
    return harm, eprocess.against_at_least(x_t, t.n + more_t, x_c, c.n + more_c, spec.margin, prior)


def _words(spec: GateSpec, answer: GateAnswer) -> str:
    bad, cases = BAD_WORDS[spec.metric], CASE_WORDS[spec.metric]
    old = "the control" if answer.concurrent else "the old version before"
    if spec.paired:
        seen, worse = f"{bad} in {_arm(answer.candidate)} {cases}", "of them"
    else:
        seen = f"{bad} in {_arm(answer.candidate)} {cases} of the candidate, {_arm(answer.control)} of {old}"
        worse = "worse"
    if answer.verdict == "fail":
        return f"{seen}; surely more than {_points(answer.tolerance)} {worse} (at least {_points(answer.low)})"
    if answer.verdict == "pass":
        return f"{seen}; surely less than {_points(answer.margin)} {worse} (at most {_points(answer.high)})"
    return f"{seen}; {_missing_words(answer, cases)}"


def _missing_words(answer: GateAnswer, cases: str) -> str:
    missing = answer.missing
    if missing is None:
        return f"no answer within reach: the harm looks too close to the margin of {_points(answer.margin)}"
    need = f"needs about {missing.candidate} more {cases} of the candidate"
    if missing.control:
        need += f" and {missing.control} of the control"
    if missing.eta_s is None:
        return f"{need}; none of the candidate's have come yet"
    return f"{need}, in about {span_words(missing.eta_s)} at the present rate"


def span_words(seconds: float) -> str:
    """Return a stretch of time for a person."""
    for unit_s, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _arm(counts: Counts) -> str:
    if counts.rate is None:
        return "0 of 0"
    weighted = " by inverse sampling probability" if len(counts.groups) > 1 else ""
    return f"{counts.bad} of {counts.n} ({100 * counts.rate:.1f} %{weighted})"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"
