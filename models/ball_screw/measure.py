"""Measures a bundle on labelled pictures through `lineside-edge infer`: `python -m models.ball_screw.measure FOLDER`.

Rules:
- The command a person would type does the work; this file only counts.
- Every picture counts: one that the gate turned away is a deferral, and has no score for the AUROC.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.roc import auroc
from export.thresholds import upper_bound
from models.ball_screw.data import HELD_OUT, position_of
from models.realdata import add_option, folder_of

_BOOTSTRAP = 2000
BUNDLE = Path(__file__).parent / "ball_screw-1.1.0.lsb"


@dataclass(frozen=True)
class Figures:
    """How a bundle did on one position."""

    position: str
    pictures: int
    pitted: int
    auroc: float | None
    """Of 1 − p(good); None where all pictures have the same label."""
    auroc_interval: tuple[float, float] | None
    """95 %, by bootstrap over pictures."""
    coverage: float
    """Share of pictures that were decided without a person."""
    escapes: int
    """Pitted pictures that passed."""
    false_rejects: int
    """Good pictures that were diverted."""
    wrong_share: float
    """Of the pictures that were decided without a person."""
    wrong_interval: tuple[float, float]
    """95 %, Clopper and Pearson."""
    turned_away: int
    """Pictures that the gate did not let through."""


def measure(bundle: Path, folder: Path, positions: list[str], runtime: str = "auto") -> list[Figures]:
    """Judge all pictures of some positions and count.

    Args:
        bundle: the `.lsb` file.
        folder: the folder `ball-screw`, with `good` and `pitting`.
        positions: for example `305000_090`.
        runtime: auto, onnx or tflite.
    """
    paths = [path for path in sorted(folder.glob("*/*.jpg")) if position_of(path.name) in positions]
    records = infer(bundle, paths, runtime)
    return [_figures(position, [r for r in records if position_of(r["path"]) == position]) for position in positions]


def infer(bundle: Path, paths: list[Path], runtime: str = "auto") -> list[dict[str, Any]]:
    """Return the JSON lines of `lineside-edge infer`.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, "-m", "edge", "infer", str(bundle), *map(str, paths), "--json", "--runtime", runtime]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _figures(position: str, records: list[dict[str, Any]]) -> Figures:
    pitted = np.array([Path(record["path"]).parent.name == "pitting" for record in records])
    verdicts = np.array([record["verdict"] for record in records])
    judged = np.array([bool(record["scores"]) for record in records])
    scores = np.array([1 - record["scores"]["good"] if record["scores"] else np.nan for record in records])
    escapes, rejects = pitted & (verdicts == "pass"), ~pitted & (verdicts == "divert")
    decided = int(np.sum(verdicts != "defer"))
    wrong = int(escapes.sum() + rejects.sum())
    both = len(np.unique(pitted[judged])) == 2
    return Figures(
        position=position,
        pictures=len(records),
        pitted=int(pitted.sum()),
        auroc=round(auroc(pitted[judged], scores[judged]), 4) if both else None,
        auroc_interval=_auroc_interval(pitted[judged], scores[judged]) if both else None,
        coverage=round(decided / max(len(records), 1), 4),
        escapes=int(escapes.sum()),
        false_rejects=int(rejects.sum()),
        wrong_share=round(wrong / max(decided, 1), 4),
        wrong_interval=_share_interval(wrong, decided),
        turned_away=int(np.sum(~judged)),
    )


def _share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of Clopper and Pearson for a share."""
    low = 1.0 - upper_bound(total - count, total, 0.025) if count else 0.0
    return round(low, 4), round(upper_bound(count, total, 0.025), 4)


def _auroc_interval(pitted: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(scores), size=len(scores)) for _ in range(_BOOTSTRAP))
    values = [auroc(pitted[draw], scores[draw]) for draw in draws]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.ball_screw.measure", description="Measure a bundle.")
    add_option(parser, "ball-screw")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--runtime", choices=("auto", "onnx", "tflite"), default="auto")
    parser.add_argument("--position", action="append", help=f"repeatable (default: {HELD_OUT})")
    options = parser.parse_args()
    for item in measure(
        options.bundle, folder_of("ball-screw", options.data), options.position or [HELD_OUT], options.runtime
    ):
        print(json.dumps(asdict(item)))
