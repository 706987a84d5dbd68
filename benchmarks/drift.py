"""Does the drift watch of the control plane keep its stated rate of false alarms, and how soon does it see a shift?

Rules:
- The rule under test is the rule itself (`cloud.telemetry.driftrule`), over counts as devices send them: one reference
  of a bundle for a whole watch, an hour of decisions at each look.
- The stated rate is held against the expected number of alarms, per comparison and per station and year; "kept" allows
  for twice the standard error of the simulation.
- Decisions that show the same thing in a row break the rate unless `repeat` says so: both are shown.
"""

import math
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import print_table
from cloud.telemetry import driftrule

SEED = 13
REFERENCE = 500
"""Inputs that the reference was made from."""
DECISIONS = 300
"""In an hour."""
METRICS = 6
BINS = 24
STATED_PER_YEAR = (0.1, 50.0)
"""The default, and one so bold that a simulation would see it broken."""
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Result:
    """One world."""

    world: str
    stated: str
    found: float
    plus_minus: float
    kept: str
    hours_to_alarm: float | None = None


def main(*, as_json: bool = False, stations: int = 200, hours: int = 500) -> list[dict[str, Any]]:
    """Simulate and print."""
    rng = np.random.default_rng(SEED)
    results = [_comparisons(rng, alpha, stations * hours // 10) for alpha in (0.05, 0.01, 0.001)]
    for rate in STATED_PER_YEAR:
        results.append(_quiet(rng, rate, stations, hours, run=1, repeat=1.0))
    results.append(_quiet(rng, STATED_PER_YEAR[1], stations, hours, run=10, repeat=1.0))
    results.append(_quiet(rng, STATED_PER_YEAR[1], stations, hours, run=10, repeat=10.0))
    results += [_shifted(rng, shift, stations) for shift in (0.25, 0.5, 1.0)]
    rows = [asdict(result) for result in results]
    title = f"Drift against a reference of {REFERENCE}, {DECISIONS} decisions an hour, {METRICS} metrics, seed {SEED}"
    print_table(title, rows, as_json=as_json)
    return rows


def _comparisons(rng: np.random.Generator, alpha: float, many: int) -> Result:
    """How often one comparison of the same distribution differs, with a fresh reference each."""
    _say(f"single comparisons at {alpha:g}")
    then, now = _counts(rng, many, REFERENCE), _counts(rng, many, DECISIONS)
    found = [driftrule.compare_bins(a.tolist(), b.tolist(), alpha) for a, b in zip(now, then, strict=True)]
    share = float(np.mean([one is not None and one.distance >= one.threshold for one in found]))
    error = math.sqrt(max(share * (1 - share), 1 / many) / many)
    kept = "yes" if share <= alpha + 2 * error else "NO"
    return Result("one comparison, nothing moved", f"≤ {alpha:g}", share, error, kept)


def _quiet(rng: np.random.Generator, rate: float, stations: int, hours: int, *, run: int, repeat: float) -> Result:
    """False alarms a year at stations where nothing moves."""
    _say(f"{stations} stations for {hours} hours, {rate:g} a year, runs of {run}")
    alarms = [_alarms(rng, rate, hours, run, repeat) for _ in range(stations)]
    years = hours / driftrule.LOOKS_A_YEAR
    found = float(np.mean(alarms)) / years
    error = max(float(np.std(alarms)), math.sqrt(1 / stations) * 0.1) / math.sqrt(stations) / years
    world = f"nothing moved, {run} in a row the same, repeat = {repeat:g}"
    kept = "yes" if found <= rate + 2 * error else "NO"
    return Result(world, f"≤ {rate:g} a year", found, error, kept)


def _alarms(rng: np.random.Generator, rate: float, hours: int, run: int, repeat: float) -> int:
    alpha, raised = driftrule.alpha_of(rate, METRICS), 0
    for _ in range(METRICS):
        then = _counts(rng, 1, REFERENCE)[0].tolist()
        state = driftrule.State()
        for hour, now in enumerate(_counts(rng, hours, DECISIONS // run) * run):
            before = state.drifting
            comparison = driftrule.compare_bins(now.tolist(), then, alpha, repeat)
            state = state if comparison is None else driftrule.step(state, comparison, hour)
            raised += state.drifting and not before
    return raised


def _shifted(rng: np.random.Generator, shift: float, stations: int) -> Result:
    """How many hours until a shift (in standard deviations) is an alarm, at the default rate."""
    _say(f"a shift of {shift:g} standard deviations")
    alpha, waits = driftrule.alpha_of(STATED_PER_YEAR[0], METRICS), []
    for _ in range(stations):
        then, state = _counts(rng, 1, REFERENCE)[0].tolist(), driftrule.State()
        for hour, now in enumerate(_counts(rng, 48, DECISIONS, shift), 1):
            comparison = driftrule.compare_bins(now.tolist(), then, alpha)
            state = state if comparison is None else driftrule.step(state, comparison, hour)
            if state.drifting:
                waits.append(hour)
                break
    share = len(waits) / stations
    median = float(np.median(waits)) if share > 0.5 else None
    error = math.sqrt(max(share * (1 - share), 1e-9) / stations)
    return Result(f"shift of {shift:g} standard deviations, found within 48 h", "", share, error, "", median)


def _counts(rng: np.random.Generator, many: int, n: int, shift: float = 0.0) -> Counts:
    """Return counts of n normal values in each of many samples, over bins as a manifest's reference has them."""
    edges = np.linspace(-3, 3, BINS - 1) - shift
    cumulative = np.array([0.0, *(0.5 * (1 + math.erf(edge / math.sqrt(2))) for edge in edges), 1.0])
    return np.asarray(rng.multinomial(n, np.diff(cumulative), size=many), dtype=np.int64)


def _say(what: str) -> None:
    sys.stderr.write(f"simulating {what}\n")
