"""Keeps scores of real data beside a bundle, for `lineside-bench risk`; `python -m models.kept NAME` makes them anew.

Rules:
- A score is that of a network that never saw the example's unit, trained as the shipped one (cross-validation by the
  recipe's own folds), calibrated as the shipped one on examples of other units.
- A recipe that builds keeps what its thresholds were proven on. The command trains the networks of the folds again and
  keeps all units: each half of them is calibrated by the other half (cross-fitting), since none may calibrate itself.
- The bundle is neither trained nor changed by it.
- A row is a score, whether it is an event, its unit and its block: no picture, no sound, some kilobytes.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import load
from edge.calibrate import probabilities
from edge.wire.manifest import GOOD_LABEL, Manifest
from export import calibration
from export.build import BuildReport
from export.recipe import Labelled
from export.scores import Scores, write
from export.thresholds import Sample

SUFFIX = ".scores.npz"
_SEED = 1
"""Of the halves."""

Block = NDArray[np.generic] | None


def keep(report: BuildReport, says: str, block: Block = None) -> Path:
    """Write the scores of a bundle that was just built to `NAME-VERSION.scores.npz` beside it.

    Args:
        report: of the build; its held-out data had labels.
        says: how the scores came about, for people.
        block: (n,) which held-out examples are alike: a board, a speaker, a position.
    """
    assert report.scores is not None
    path = report.path.with_suffix(SUFFIX)
    write(path, replace(report.scores, name=f"{report.ref.name} {report.ref.version}, {says}", block=block))
    return path


def cross_fitted(manifest: Manifest, examples: Labelled, says: str, block: Block = None) -> Scores:
    """Return calibrated scores of cross-validated examples, each half of the units calibrated by the other.

    Args:
        manifest: of the bundle; says the task, the labels and the method of calibration.
        examples: with logits of networks that never saw their group.
        says: how the scores came about, for people.
        block: (n,) which examples are alike.
    """
    assert examples.logits is not None and examples.groups is not None
    first = _half(examples.groups)
    chances = np.empty(examples.logits.shape, np.float64)
    for half in (first, ~first):
        chances[half] = probabilities(examples.logits[half], _fitted(manifest, examples.take(np.flatnonzero(~half))))
    if manifest.task == "inspect":
        good = manifest.labels.index(GOOD_LABEL)
        score, event = 1.0 - chances[:, good], examples.labels != good
    else:
        score, event = chances.max(1), chances.argmax(1) == examples.labels
    sample = Sample(np.clip(score, 0.0, 1.0), event, examples.groups)
    return Scores(sample, manifest.task, f"{manifest.name} {manifest.version}, {says}", block)


def _half(groups: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which examples are of a random half of the units."""
    names, unit = np.unique(groups, return_inverse=True)
    chosen = np.zeros(len(names), np.bool_)
    chosen[np.random.default_rng(_SEED).permutation(len(names))[: len(names) // 2]] = True
    return chosen[unit]


def _fitted(manifest: Manifest, others: Labelled) -> Any:
    assert others.logits is not None
    method = manifest.calibration.method
    assert method != "sigmoid"
    good = manifest.labels.index(GOOD_LABEL) if manifest.task == "inspect" else None
    return calibration.fit(others.logits, others.labels, method, groups=others.groups, good=good).calibration


def _pcb(data: Path | None) -> tuple[Labelled, Block, str]:
    from models.pcb.train import judged

    return *judged(data), "each board by a network that never saw it"


def _commands(data: Path | None) -> tuple[Labelled, Block, str]:
    from models.commands.train import judged

    return *judged(data), "each speaker by a network that never heard them"


def _magnetic_tile(data: Path | None) -> tuple[Labelled, Block, str]:
    from models.magnetic_tile.train import judged

    return *judged(data), "each tile by a network that never saw it"


_JUDGE: dict[str, Callable[[Path | None], tuple[Labelled, Block, str]]] = {
    "commands": _commands,
    "magnetic_tile": _magnetic_tile,
    "pcb": _pcb,
}


def main(chosen: list[str], data: Path | None = None) -> None:
    """Judge the data of some models by cross-validation, and write the scores beside their bundles."""
    for name in chosen:
        bundles = sorted((Path(__file__).parent / name).glob("*.lsb"))
        examples, block, says = _JUDGE[name](data)
        for path in bundles:
            write(path.with_suffix(SUFFIX), cross_fitted(load(path).manifest, examples, says, block))
            print(path.with_suffix(SUFFIX).name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m models.kept", description="Score real data by networks that never saw it (cross-validation)."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models (default: all of {', '.join(_JUDGE)})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    options = parser.parse_args()
    main(options.names or list(_JUDGE), options.data)
