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
- Reviewed labels count unweighted: right where all audits of an arm were drawn with one probability.
"""

import math
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cloud import eprocess

Metric = Literal["deferral", "errors", "deadline", "latency", "wrong", "escape", "false_reject"]
Verdict = Literal["pass", "fail", "need_more"]

TOLERANCE_OF_MARGIN = 0.25
"""Share of the margin that is tolerated unless said otherwise: a difference too small to matter must not take a
version back, and whatever lies between tolerance and margin is still decided."""
PRIOR_WEIGHT = 10.0
"""The expected rate counts as much as this many cases: it helps at the start and is soon outvoted."""
LOOK_AHEAD = np.geomspace(1.0, 1e7, 100)
"""Further cases of the larger arm at which the projection looks, each 18 % beyond the last."""

EXPECTED_RATE: dict[Metric, float] = {
    "deferral": 0.1,
    "errors": 0.001,
    "deadline": 0.001,
    "latency": 0.01,
    "wrong": 0.02,
    "escape": 0.02,
    "false_reject": 0.02,
}
"""Where the prior looks first; a wrong guess costs time, not validity."""
BAD_WORDS: dict[Metric, str] = {
    "deferral": "deferred",
    "errors": "failed",
    "deadline": "past the deadline",
    "latency": "too slow",
    "wrong": "wrong",
    "escape": "escaped",
    "false_reject": "rejected though good",
}
CASE_WORDS: dict[Metric, str] = {
    "deferral": "decisions",
    "errors": "decisions",
    "deadline": "decisions",
    "latency": "decisions",
    "wrong": "reviewed audits",
    "escape": "reviewed audits of passed parts",
    "false_reject": "reviewed audits of diverted parts",
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
    limit_ms: float | None = Field(default=None, gt=0)
    """For `latency`: a decision that takes longer is too slow."""

    @model_validator(mode="after")
    def _consistent(self) -> "GateSpec":
        if (self.metric == "latency") != (self.limit_ms is not None):
            raise ValueError("limit_ms belongs to the metric latency, which cannot do without")
        if self.tolerated >= self.margin:
            raise ValueError(f"tolerance {self.tolerated} must be below margin {self.margin}")
        return self

    @property
    def key(self) -> str:
        """Name of the gate within its stage."""
        return self.metric if self.limit_ms is None else f"{self.metric}_over_{self.limit_ms:g}_ms"

    @property
    def tolerated(self) -> float:
        return self.margin * TOLERANCE_OF_MARGIN if self.tolerance is None else self.tolerance

    @property
    def prior(self) -> eprocess.Prior:
        """Half of it near the expected rate, half anywhere (Jeffreys)."""
        rate = self.expected_rate or EXPECTED_RATE[self.metric]
        rate = rate if self.worse == "higher" else 1 - rate
        return (0.5, PRIOR_WEIGHT * rate, PRIOR_WEIGHT * (1 - rate)), (0.5, 0.5, 0.5)


class Counts(BaseModel):
    """Bad cases among all cases of one arm."""

    model_config = ConfigDict(frozen=True)

    bad: int = Field(default=0, ge=0)
    n: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> "Counts":
        if self.bad > self.n:
            raise ValueError(f"bad {self.bad} must not exceed n {self.n}")
        return self

    @property
    def rate(self) -> float | None:
        return self.bad / self.n if self.n else None

    @property
    def turned(self) -> "Counts":
        """The same with good and bad exchanged."""
        return Counts(bad=self.n - self.bad, n=self.n)


class Missing(BaseModel):
    """About how many more cases until an answer, if the rates stay as they look."""

    model_config = ConfigDict(frozen=True)

    candidate: int
    control: int
    eta_s: float | None
    """Seconds until then at the present rate; None when nothing has come yet."""


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
) -> GateAnswer:
    """Return the gate's answer to the counts of both arms.

    Args:
        spec: the gate.
        candidate: cases under the new version.
        control: cases under the old one.
        fail_error: largest probability of ever failing a version whose harm is within the tolerance.
        pass_error: largest probability of ever passing one whose harm is the margin or more.
        elapsed_s: how long the cases took to come, for the projection; 0 when not known.
        concurrent: whether the control's cases come at the same time as the candidate's.
    """
    t, c = (candidate, control) if spec.worse == "higher" else (candidate.turned, control.turned)
    harm = float(eprocess.against_at_most(t.bad, t.n, c.bad, c.n, spec.tolerated, spec.prior))
    safety = float(eprocess.against_at_least(t.bad, t.n, c.bad, c.n, spec.margin, spec.prior))
    verdict = verdict_of(harm, safety, fail_error, pass_error)
    low, high = eprocess.bounds(t.bad, t.n, c.bad, c.n, spec.prior, fail_error, pass_error)
    missing = None
    if verdict == "need_more":
        missing = _missing(spec, t, c, fail_error, pass_error, elapsed_s, concurrent=concurrent)
    answer = GateAnswer(
        gate=spec.key,
        verdict=verdict,
        candidate=candidate,
        control=control,
        concurrent=concurrent,
        harm=t.bad / t.n - c.bad / c.n if t.n and c.n else None,
        low=low,
        high=high,
        margin=spec.margin,
        tolerance=spec.tolerated,
        missing=missing,
        words="",
    )
    return answer.model_copy(update={"words": _words(spec, answer)})


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
    more_c = LOOK_AHEAD * share_c / max(share_t, share_c)
    usual = spec.prior[0][1] / PRIOR_WEIGHT
    x = t.bad + more_t * (t.bad + usual) / (t.n + 1)
    y = c.bad + more_c * (c.bad + usual) / (c.n + 1)
    harm = eprocess.against_at_most(x, t.n + more_t, y, c.n + more_c, spec.tolerated, spec.prior)
    safety = eprocess.against_at_least(x, t.n + more_t, y, c.n + more_c, spec.margin, spec.prior)
    answered = (harm >= -math.log(fail_error)) | (safety >= -math.log(pass_error))
    if not answered.any():
        return None
    first = int(np.argmax(answered))
    flow = t.n / elapsed_s if elapsed_s > 0 else 0.0
    eta_s = float(more_t[first]) / flow if flow > 0 else None
    return Missing(candidate=math.ceil(more_t[first]), control=math.ceil(more_c[first]), eta_s=eta_s)


def _words(spec: GateSpec, answer: GateAnswer) -> str:
    bad, cases = BAD_WORDS[spec.metric], CASE_WORDS[spec.metric]
    old = "the control" if answer.concurrent else "the old version before"
    seen = f"{bad} in {_arm(answer.candidate)} {cases} of the candidate, {_arm(answer.control)} of {old}"
    if answer.verdict == "fail":
        return f"{seen}; surely more than {_points(answer.tolerance)} worse (at least {_points(answer.low)})"
    if answer.verdict == "pass":
        return f"{seen}; surely less than {_points(answer.margin)} worse (at most {_points(answer.high)})"
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
    return f"{need}, in about {missing.eta_s:.0f} s at the present rate"


def _arm(counts: Counts) -> str:
    if counts.rate is None:
        return "0 of 0"
    return f"{counts.bad} of {counts.n} ({100 * counts.rate:.1f} %)"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"
