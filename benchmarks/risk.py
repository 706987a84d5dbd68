"""Do the bounds on escapes and false rejects hold as often as promised, and does a fixed threshold of 0.9?

Rules:
- Real scores with their units (`export.scores`), split at random by unit, again and again: one half chooses and proves
  the thresholds by the very code that makes bundles, as if it were all there is.
- A bound is broken if more than alpha of the decided units are wrong over all units, of which that half is a random
  sample: this is what is promised, and it is exact. On the other half alone the share of wrong ones has chance of its
  own, so even a bound that holds is exceeded there sometimes; that is shown too, beside the same for the fixed rule.
- Where scores say which units are alike (a block: a board, a speaker), blocks are split as well, in two ways. With a
  block as the unit the promise is one for new blocks, and takes as many of them as it takes of any unit. With units
  as they are, thresholds proven on half of the blocks are tried on the other half: no bound covers that, it is shown.
- Where the half that proves has fewer units than a proof without any error takes, all is deferred: `proves_with` and
  `needed` stand in each row, so that a bound which is kept for want of data is not taken for a good one.
- The fixed rule ("sure enough at 0.9") chooses nothing, so over all units it is broken always or never.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import print_table
from edge.errors import ConfigError
from edge.wire.manifest import InspectPolicy, KeywordPolicy
from export.scores import Scores, read
from export.thresholds import Sample, choose_inspect, choose_keyword, units_needed

SPLITS = 500
ALPHAS, DELTA = (0.01, 0.02), 0.05
REAL_ALPHAS = (0.01, 0.02, 0.05, 0.1)
"""Of real data: what is asked for, and what samples of some hundred units can prove."""
PARTS = 2400
SEED = 17
PILOT_SHARE = 0.3
"""Of the half that chooses: what orders the thresholds, as in a build."""
FIXED = 0.9
LEARN_THEN_TEST = "learn-then-test"
_PARTS_SEED = 53
"""A series of parts that no training, held-out or reference set uses."""
_DEFECT_SHARE = 0.3
_LIGHTS = ("mixed", "fading")
"""The lights that phone_glass was made for, and a lamp that ages, where it is surer than it should be."""
_TOLD_EVERY_S = 5.0
_MODELS = Path(__file__).resolve().parent.parent / "models"

Decided = InspectPolicy | KeywordPolicy
Rule = Callable[[Sample, Sample], Decided]


@dataclass(frozen=True)
class Outcome:
    """One rule on one split; errors are shares of decided units, the larger of both sides for inspection."""

    error_all: float
    error_rest: float
    coverage: float


@dataclass(frozen=True)
class Result:
    """One rule over all splits."""

    split_by: str
    """Unit, or block."""
    rule: str
    alpha: float
    proves_with: int
    """Units (blocks, where one is a unit) that prove thresholds in a split; with those of the pilot half of all."""
    needed: int
    """Units that have to be decided without any error to prove alpha; 0 for a rule that proves nothing."""
    broken: float
    plus_minus: float
    """Standard error of the share."""
    promise: str
    kept: str
    broken_on_rest: float
    error_mean: float
    """On the other half."""
    coverage_mean: float
    """Share of the other half's examples that are decided without a person."""


def main(
    *,
    as_json: bool = False,
    files: Sequence[Path] = (),
    real: bool = False,
    splits: int = SPLITS,
    alphas: Sequence[float] | None = None,
    delta: float = DELTA,
    parts: int = PARTS,
) -> list[dict[str, Any]]:
    """Split, measure and print.

    Args:
        as_json: print JSON lines.
        files: scores that recipes wrote.
        real: take the scores that stand beside the reference bundles.
        splits: how many.
        alphas: shares of wrong that are allowed; None for `REAL_ALPHAS` or `ALPHAS`.
        delta: probability that a bound does not hold.
        parts: drawn for each light, where no scores are given.

    Raises:
        ConfigError: there are no scores, or too few units.
        ModelError: a file holds no scores.
    """
    paths = [*files, *(kept() if real else ())]
    sources = [read(path) for path in paths] or [phone_glass(parts, light) for light in _LIGHTS]
    everything: list[dict[str, Any]] = []
    for scores in sources:
        rows = [
            asdict(result)
            for alpha in alphas or (REAL_ALPHAS if real else ALPHAS)
            for result in [*measured(scores, splits, alpha, delta), *blocks(scores, splits, alpha, delta)]
        ]
        units = len(np.unique(scores.sample.units()))
        about = {"scores": scores.name, "units": units, "splits": splits, "delta": delta}
        everything += [{**about, **row} for row in rows]
        title = f"{scores.name}: at most alpha wrong, {splits} random splits of {units} units, seed {SEED}"
        print_table(title, everything[-len(rows) :] if as_json else rows, as_json=as_json)
    return everything


def kept() -> list[Path]:
    """Return the files of scores that stand beside the reference bundles.

    Raises:
        ConfigError: there is no checkout of the source.
    """
    found = sorted(_MODELS.glob("*/*.scores.npz"))
    if not found:
        raise ConfigError(
            f"{_MODELS}: expected NAME/NAME-VERSION.scores.npz, found none",
            hint="run it in a checkout of the source, or give --scores",
        )
    return found


def measured(scores: Scores, splits: int, alpha: float, delta: float) -> list[Result]:
    """Return how both rules fare on one model's scores, split by unit.

    Raises:
        ConfigError: there are too few units to split.
    """
    count = len(np.unique(scores.sample.units()))
    if count < 4:
        raise ConfigError(f"{scores.name}: expected at least 4 units to split, got {count}")
    return _split_by(scores, "unit", splits, alpha, delta)


def blocks(scores: Scores, splits: int, alpha: float, delta: float) -> list[Result]:
    """Return how both rules fare where whole blocks are split: as units, and as the world that comes after the proof.

    Nothing where the scores name no blocks, or one only.
    """
    if scores.block is None or len(np.unique(scores.block)) < 2:
        return []
    sample = Sample(scores.sample.score, scores.sample.event, scores.block)
    as_units = _split_by(replace(scores, sample=sample), "block", splits, alpha, delta)
    return [as_units[0], *across(scores, splits, alpha, delta)]


def across(scores: Scores, splits: int, alpha: float, delta: float) -> list[Result]:
    """Return how both rules fare on blocks that took no part in their proof; `broken` is over those blocks' units."""
    sample, block = _numbered(scores.sample), np.unique(np.asarray(scores.block), return_inverse=True)[1]
    units, count = sample.units(), int(block.max()) + 1
    rng = np.random.default_rng(SEED)
    rules, needed, proofs = _rules(scores, alpha, delta), _needed(scores, alpha, delta), 0
    outcomes: dict[str, list[Outcome]] = {name: [] for name in rules}
    for _ in range(splits):
        known = np.isin(block, rng.permutation(count)[: max(1, count // 2)])
        theirs = np.unique(units[known])
        pilot = np.isin(units, rng.permutation(theirs)[: max(1, round(len(theirs) * PILOT_SHARE))])
        proof, other = _part(sample, known & ~pilot), _part(sample, ~known)
        proofs += len(np.unique(proof.units()))
        for name, rule in rules.items():
            policy = rule(_part(sample, known & pilot), proof)
            outcomes[name].append(replace(_outcome(policy, sample, other), error_all=_error(policy, other)))
    found = (
        _result(f"{count} blocks, the others", name, made, round(proofs / splits), needed, alpha, delta)
        for name, made in outcomes.items()
    )
    return [replace(result, promise="none", kept="") for result in found]


def fixed_rule(scores: Scores) -> Decided:
    """Return the rule of thumb: sure enough at 0.9."""
    if scores.task == "inspect":
        return InspectPolicy(pass_max=round(1 - FIXED, 6), divert_min=FIXED)
    return KeywordPolicy(accept_min=FIXED)


def phone_glass(parts: int, light: str) -> Scores:
    """Return scores of the first phone_glass bundle for parts drawn now, each seen once.

    Raises:
        ConfigError: there is no checkout of the source.
    """
    try:
        from models.phone_glass import generator
        from models.phone_glass.data import seen
        from models.phone_glass.parts import FADING_PARTS, light_of, make_part
    except ModuleNotFoundError as error:
        hint = "run it in a checkout of the source, or give --scores"
        raise ConfigError(f"models/phone_glass is not here: {error}", hint=hint) from error
    from edge.bundle import load
    from edge.calibrate import probabilities
    from edge.preprocess import image_tensor
    from export import golden

    bundle = load(min(Path(generator.__file__).parent.glob("phone_glass-*.lsb")))
    manifest = bundle.manifest
    assert manifest.input.kind == "image"
    studio, values, events = generator.Studio(), [], []
    told_s = time.monotonic()
    for number in range(parts):
        part = make_part(_PARTS_SEED, number, _DEFECT_SHARE)
        picture = seen(studio, part, light_of(light, _PARTS_SEED, number % FADING_PARTS), 0)
        values.append(image_tensor(picture, manifest.input)[0])
        events.append(part.label != "good")
        if time.monotonic() - told_s > _TOLD_EVERY_S:
            told_s = time.monotonic()
            sys.stderr.write(f"phone_glass, {light} light: part {number + 1} of {parts}\n")
    spec, model = bundle.model("onnx")
    chances = probabilities(golden.outputs(model, spec, np.stack(values)), manifest.calibration)
    score = 1.0 - chances[:, manifest.labels.index("good")]
    sample = Sample(np.clip(score, 0.0, 1.0), np.array(events), np.arange(parts))
    return Scores(sample, "inspect", f"{manifest.name} {manifest.version}, {light} light")


def _split_by(scores: Scores, split_by: str, splits: int, alpha: float, delta: float) -> list[Result]:
    sample, rules = _numbered(scores.sample), _rules(scores, alpha, delta)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in rules}
    rng, told_s, proves_with = np.random.default_rng(SEED), time.monotonic(), 0
    for split in range(splits):
        pilot, proof, rest = _split(sample, rng)
        proves_with = len(np.unique(proof.units()))
        for name, rule in rules.items():
            outcomes[name].append(_outcome(rule(pilot, proof), sample, rest))
        if time.monotonic() - told_s > _TOLD_EVERY_S:
            told_s = time.monotonic()
            sys.stderr.write(f"{scores.name}: split {split + 1} of {splits}\n")
    needed = _needed(scores, alpha, delta)
    return [_result(split_by, name, made, proves_with, needed, alpha, delta) for name, made in outcomes.items()]


def _rules(scores: Scores, alpha: float, delta: float) -> dict[str, Rule]:
    return {
        LEARN_THEN_TEST: lambda pilot, proof: _learn_then_test(scores, pilot, proof, alpha, delta),
        f"threshold {FIXED:g}": lambda _pilot, _proof: fixed_rule(scores),
    }


def _needed(scores: Scores, alpha: float, delta: float) -> int:
    """Return how many units without any error prove a side, as the thresholds are chosen."""
    return units_needed(alpha, delta / 2 if scores.task == "inspect" else delta)


def _numbered(sample: Sample) -> Sample:
    """Return the sample with whole numbers for its units, which are compared more quickly than names."""
    return Sample(sample.score, sample.event, sample.units())


def _learn_then_test(scores: Scores, pilot: Sample, proof: Sample, alpha: float, delta: float) -> Decided:
    if scores.task == "inspect":
        return choose_inspect(pilot, proof, alpha_escape=alpha, alpha_false_reject=alpha, delta=delta, unit="unit")
    return choose_keyword(pilot, proof, alpha_error=alpha, delta=delta, unit="unit")


def _split(sample: Sample, rng: np.random.Generator) -> tuple[Sample, Sample, Sample]:
    """Return (pilot, proof, rest): a random half of the units, in two parts, and the other half."""
    units = sample.units()
    order = rng.permutation(int(units.max()) + 1)
    half = len(order) // 2
    first = max(1, round(half * PILOT_SHARE))
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    at = place[units]
    return _part(sample, at < first), _part(sample, (at >= first) & (at < half)), _part(sample, at >= half)


def _part(sample: Sample, inside: NDArray[np.bool_]) -> Sample:
    return Sample(sample.score[inside], sample.event[inside], sample.units()[inside])


def _outcome(policy: Decided, sample: Sample, rest: Sample) -> Outcome:
    coverage = float(np.mean(np.any([decided for decided, _ in _sides(policy, rest)], axis=0)))
    return Outcome(_error(policy, sample), _error(policy, rest), coverage)


def _error(policy: Decided, sample: Sample) -> float:
    """Return the share of wrong among decided units, the larger of both sides; 0 if none is decided."""
    units, worst = sample.units(), 0.0
    for decided, wrong in _sides(policy, sample):
        count = len(np.unique(units[decided]))
        worst = max(worst, len(np.unique(units[decided & wrong])) / count if count else 0.0)
    return worst


def _sides(policy: Decided, sample: Sample) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return (decided, wrong if decided) of each way of deciding."""
    if isinstance(policy, InspectPolicy):
        passed = sample.score <= policy.pass_max
        return [(passed, sample.event), ((sample.score >= policy.divert_min) & ~passed, ~sample.event)]
    return [(sample.score >= policy.accept_min, ~sample.event)]


def _result(
    split_by: str, rule: str, made: list[Outcome], proves_with: int, needed: int, alpha: float, delta: float
) -> Result:
    broken = float(np.mean([outcome.error_all > alpha for outcome in made]))
    error = math.sqrt(broken * (1 - broken) / len(made))
    promised = rule == LEARN_THEN_TEST
    # Where none is broken the standard error is nothing too; one in so many could still have been.
    kept = broken <= delta + 2 * max(error, math.sqrt(delta * (1 - delta) / len(made)))
    return Result(
        split_by=split_by,
        rule=rule,
        alpha=alpha,
        proves_with=proves_with if promised else 0,
        needed=needed if promised else 0,
        broken=broken,
        plus_minus=error,
        promise=f"≤ {delta:.0%}" if promised else "none",
        kept="" if not promised else "yes" if kept else "NO",
        broken_on_rest=float(np.mean([outcome.error_rest > alpha for outcome in made])),
        error_mean=float(np.mean([outcome.error_rest for outcome in made])),
        coverage_mean=float(np.mean([outcome.coverage for outcome in made])),
    )
