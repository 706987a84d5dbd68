"""Do the gates of rollouts keep their promise when one looks after every window, and how soon do they find harm?

Rules:
- The rules under test are the gates themselves (`cloud.gates`), over streams with known rates, looked at after every
  window of both arms; the usual rules see the very same streams.
- A false rollback is a version taken back that is no worse. The promise is at most 5 % over the whole watch, at all
  looks together.
- The usual rules are what others use: a fixed threshold on the difference; a z-test at 5 %, right at one look and made
  at all of them; and the same test made once, at the number of cases that finds the doubled rate with 80 %.
- Where the candidate's boxes audit hard parts more often, the gate is shown with and without its weights.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import print_table
from cloud import eprocess
from cloud.gates import GateSpec
from cloud.plans import Plan, PlanShape

RUNS = 2000
WINDOWS = 500
CASES = 20
"""Reviewed audits of each arm in a window."""
ERROR = 0.05
ESCAPE_RATE = 0.02
SEED = 11
MIN_CASES = 100
"""Before which the threshold rule does not speak, as its users set it."""
THRESHOLD = 0.02
Z_ONE_SIDED = 1.6449
"""95 % quantile of the normal distribution."""
Z_POWER = 0.8416
"""80 % quantile."""
RUNS_AT_ONCE = 100
"""So that a table of counts fits the processor's cache."""
EASY_AND_HARD = np.array([0.9, 0.1])
"""Shares of the parts."""
EASY_AND_HARD_RATES = np.array([0.01, 0.1])
"""Of escapes, the same for both versions."""
AUDITS_OF_CANDIDATE, AUDITS_OF_CONTROL = np.array([9, 10]), np.array([9, 1])
"""In a window of 200 decisions: the candidate's boxes audit half of the hard parts, all others a twentieth."""
GROUP_WINDOWS = 150
ORDINARY_RATES = {"deferral": 0.1, "errors": 0.001, "deadline": 0.001, "wrong": 0.02}

ESCAPE_GATE = GateSpec(metric="escape", margin=0.02, tolerance=0.005)

Counts = NDArray[np.int64]
"""(runs, windows): bad cases so far."""
Alarms = NDArray[np.bool_]
"""(runs, windows): whether the rule takes the version back at this look."""
Rule = Callable[[Counts, Counts], Alarms]


@dataclass(frozen=True)
class Result:
    """One rule in one world."""

    rule: str
    world: str
    runs: int
    taken_back: float
    plus_minus: float
    """Standard error of the share."""
    windows_median: float | None
    """Until taken back; never counts as longer than the watch, and None means that most never were."""
    promise: str
    kept: str


def main(*, as_json: bool = False, runs: int = RUNS, windows: int = WINDOWS) -> list[dict[str, Any]]:
    """Simulate and print."""
    rng = np.random.default_rng(SEED)
    rows = [asdict(result) for result in _worlds(rng, runs, windows)]
    title = f"Gates looked at after each of {windows} windows of {CASES} audits an arm, seed {SEED}"
    print_table(title, rows, as_json=as_json)
    return rows


def _worlds(rng: np.random.Generator, runs: int, windows: int) -> list[Result]:
    rules: dict[str, Rule] = {
        "gate, 0.5 points": gate_rule(ESCAPE_GATE, ERROR),
        "gate, 0 points": gate_rule(GateSpec(metric="escape", margin=0.02, tolerance=0.0), ERROR),
        f"threshold, {100 * THRESHOLD:g} points": threshold_rule,
        "z-test, every look": z_test_rule,
        "z-test, one look as planned": fixed_sample_rule,
    }
    results = []
    for world, rate in (("no harm", ESCAPE_RATE), ("escapes × 2", 2 * ESCAPE_RATE)):
        candidate, control = (_stream(rng, p, runs, windows) for p in (rate, ESCAPE_RATE))
        for name, rule in rules.items():
            _say(f"{world}: {name}")
            results.append(_result(name, world, rule(candidate, control), harmless=rate == ESCAPE_RATE))
    edge = gate_rule(ESCAPE_GATE, ERROR)
    _say("harm at the tolerance")
    candidate, control = (_stream(rng, p, runs, windows) for p in (ESCAPE_RATE + 0.005, ESCAPE_RATE))
    results.append(_result("gate, 0.5 points", "tolerated harm", edge(candidate, control), harmless=True))
    for name, rule in (("gate, by probability", weighted_rule), ("gate, unweighted", unweighted_rule)):
        _say(f"unequal audits: {name}")
        unequal = _unequal(rng, rule, runs, min(windows, GROUP_WINDOWS))
        results.append(_result(name, "no harm, unequal audits", unequal, harmless=True))
    _say("all gates of the default plan's canary")
    alarms = _default_canary(rng, runs, windows)
    results.append(_result("default plan's gates", "no harm", alarms, harmless=True))
    return results


def gate_rule(spec: GateSpec, error: float) -> Rule:
    """Return the gate's own way of failing, over many runs at once."""

    def some(candidate: Counts, control: Counts) -> Alarms:
        n = CASES * np.arange(1, candidate.shape[1] + 1)
        evidence = eprocess.against_at_most(candidate, n, control, n, spec.tolerated, spec.prior)
        return np.asarray(evidence >= -math.log(error))

    def alarms(candidate: Counts, control: Counts) -> Alarms:
        parts = range(0, len(candidate), RUNS_AT_ONCE)
        return np.concatenate([some(candidate[i : i + RUNS_AT_ONCE], control[i : i + RUNS_AT_ONCE]) for i in parts])

    return alarms


def threshold_rule(candidate: Counts, control: Counts) -> Alarms:
    """Take back when the observed rates differ by more than a fixed number of points."""
    n = CASES * np.arange(1, candidate.shape[1] + 1)
    return np.asarray(((candidate - control) / n > THRESHOLD) & (n >= MIN_CASES))


def z_test_rule(candidate: Counts, control: Counts) -> Alarms:
    """Take back when a one-sided test of two proportions at 5 % says so: right at one look, made at all of them."""
    n = CASES * np.arange(1, candidate.shape[1] + 1)
    pooled = (candidate + control) / (2 * n)
    spread = np.sqrt(np.maximum(pooled * (1 - pooled) * 2 / n, 1e-12))
    return np.asarray(((candidate - control) / n > Z_ONE_SIDED * spread) & (n >= MIN_CASES))


def fixed_sample_rule(candidate: Counts, control: Counts) -> Alarms:
    """Make the z-test once, at the planned number of cases, and never look before or after."""
    rates = np.array([ESCAPE_RATE, 2 * ESCAPE_RATE])
    planned = (Z_ONE_SIDED + Z_POWER) ** 2 * float((rates * (1 - rates)).sum()) / ESCAPE_RATE**2
    look = math.ceil(planned / CASES) - 1
    alarms = np.zeros(candidate.shape, dtype=bool)
    if look < candidate.shape[1]:
        alarms[:, look] = z_test_rule(candidate, control)[:, look]
    return alarms


def weighted_rule(candidate: Counts, control: Counts) -> Alarms:
    """Take back as the gate does, by inverse sampling probability; counts of shape (runs, windows, groups)."""
    steps = np.arange(1, candidate.shape[1] + 1)[:, None]
    n, m, prior = AUDITS_OF_CANDIDATE * steps, AUDITS_OF_CONTROL * steps, ESCAPE_GATE.prior
    evidence = [
        eprocess.groups_at_most(x, n, y, m, EASY_AND_HARD, ESCAPE_GATE.tolerated, prior)
        for x, y in zip(candidate, control, strict=True)
    ]
    return np.asarray(np.stack(evidence) >= -math.log(ERROR))


def unweighted_rule(candidate: Counts, control: Counts) -> Alarms:
    """Take back as the gate would if every audit counted the same; counts of shape (runs, windows, groups)."""
    steps = np.arange(1, candidate.shape[1] + 1)
    n, m = AUDITS_OF_CANDIDATE.sum() * steps, AUDITS_OF_CONTROL.sum() * steps
    x, y = candidate.sum(axis=2), control.sum(axis=2)
    evidence = eprocess.against_at_most(x, n, y, m, ESCAPE_GATE.tolerated, ESCAPE_GATE.prior)
    return np.asarray(evidence >= -math.log(ERROR))


def _unequal(rng: np.random.Generator, rule: Rule, runs: int, windows: int) -> Alarms:
    candidate, control = (
        np.cumsum(rng.binomial(audits, EASY_AND_HARD_RATES, (runs, windows, 2)), axis=1)
        for audits in (AUDITS_OF_CANDIDATE, AUDITS_OF_CONTROL)
    )
    return rule(candidate, control)


def _default_canary(rng: np.random.Generator, runs: int, windows: int) -> Alarms:
    plan = Plan.of(PlanShape(), model="any", version="1.0.0", digest="0" * 64)
    total = np.zeros((runs, windows), dtype=bool)
    for spec in plan.stages[1].gates:
        rate = ORDINARY_RATES[spec.metric]
        rule = gate_rule(spec, plan.fail_error(spec))
        total |= rule(_stream(rng, rate, runs, windows), _stream(rng, rate, runs, windows))
    return total


def _stream(rng: np.random.Generator, rate: float, runs: int, windows: int) -> Counts:
    return np.cumsum(rng.binomial(CASES, rate, (runs, windows)), axis=1)


def _result(rule: str, world: str, alarms: Alarms, *, harmless: bool) -> Result:
    raised = np.asarray(alarms.any(axis=1))
    share = float(raised.mean())
    first = np.where(raised, alarms.argmax(axis=1) + 1, np.inf)
    median = float(np.median(first))
    error = math.sqrt(max(share * (1 - share), 1e-12) / len(raised))
    return Result(
        rule=rule,
        world=world,
        runs=len(raised),
        taken_back=share,
        plus_minus=error,
        windows_median=median if math.isfinite(median) else None,
        promise=f"≤ {100 * ERROR:g} %" if harmless else "soon",
        kept=("yes" if share <= ERROR + 2 * error else "NO") if harmless else "",
    )


def _say(what: str) -> None:
    sys.stderr.write(f"simulating {what}\n")
