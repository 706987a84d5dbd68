"""Do the gates of rollouts keep their promise when one looks after every window, and how soon do they find harm?

Rules:
- The rules under test are the gates themselves (`cloud.gates`), over streams with known rates, looked at after every
  window of both arms; the usual rules see the very same streams.
- A false rollback is a version taken back that is no worse. The promise is at most 5 % over the whole watch, at all
  looks together.
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

RUNS = 500
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
ORDINARY_RATES = {"deferral": 0.1, "errors": 0.001, "deadline": 0.001, "wrong": 0.02}

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
        "gate, 0.5 points": gate_rule(GateSpec(metric="escape", margin=0.02, tolerance=0.005), ERROR),
        "gate, 0 points": gate_rule(GateSpec(metric="escape", margin=0.02, tolerance=0.0), ERROR),
        f"threshold, {100 * THRESHOLD:g} points": threshold_rule,
        "z-test, every look": z_test_rule,
    }
    results = []
    for world, rate in (("no harm", ESCAPE_RATE), ("escapes × 2", 2 * ESCAPE_RATE)):
        candidate, control = (_stream(rng, p, runs, windows) for p in (rate, ESCAPE_RATE))
        for name, rule in rules.items():
            _say(f"{world}: {name}")
            results.append(_result(name, world, rule(candidate, control), harmless=rate == ESCAPE_RATE))
    edge = gate_rule(GateSpec(metric="escape", margin=0.02, tolerance=0.005), ERROR)
    _say("harm at the tolerance")
    candidate, control = (_stream(rng, p, runs, windows) for p in (ESCAPE_RATE + 0.005, ESCAPE_RATE))
    results.append(_result("gate, 0.5 points", "tolerated harm", edge(candidate, control), harmless=True))
    _say("all gates of the default plan's canary")
    alarms = _default_canary(rng, runs, windows)
    results.append(_result("default plan's gates", "no harm", alarms, harmless=True))
    return results


def gate_rule(spec: GateSpec, error: float) -> Rule:
    """Return the gate's own way of failing, over many runs at once."""

    def alarms(candidate: Counts, control: Counts) -> Alarms:
        n = CASES * np.arange(1, candidate.shape[1] + 1)
        evidence = eprocess.against_at_most(candidate, n, control, n, spec.tolerated, spec.prior)
        return np.asarray(evidence >= -math.log(error))

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
