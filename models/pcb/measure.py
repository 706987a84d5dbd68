"""Measures a bundle on labelled scans through `lineside-edge infer`: `python -m models.pcb.measure`.

Rules:
- The command a person would type does the work; this file only counts.
- Every scan counts: one that the gate turned away or that looked strange is a deferral, and has no score for the AUROC
  if it was not scored.
- The shipped network was trained on the boards of `pcb/`: figures of boards never seen are in the bundle's manifest,
  or come from other boards in a folder of the same form.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import load
from edge.preprocess import image_tensor, to_model
from edge.runtimes import open_session
from export.roc import auroc
from models.pcb.data import INPUT, KINDS, board_of, read_boxes
from models.pcb.figures import RECALL, interval
from models.realdata import add_option, folder_of

BUNDLE = Path(__file__).parent / "pcb-1.0.0.lsb"
_AT_ONCE = 400
"""Paths on one command line."""
_RUNS = 200


@dataclass(frozen=True)
class Figures:
    """How a bundle did on some boards."""

    boards: str
    scans: int
    defective: int
    auroc: float | None
    """Of 1 − p(good); None where all scans have the same label."""
    recall: float
    """Share of defective scans that were not passed."""
    false_rejects_at_99_recall: float | None
    coverage: float
    """Share of scans that were decided without a person."""
    escapes: int
    escape_interval: list[float]
    """95 % for the share of defective among those that passed, Clopper and Pearson."""
    false_rejects: int
    false_reject_interval: list[float]
    """95 % for the share of good among those that were diverted."""
    named_kind_present: float | None
    """Share of defective scans whose likeliest kind is on the scan."""
    turned_away: int


def measure(bundle: Path, folder: Path, boards: list[str] | None = None, runtime: str = "auto") -> Figures:
    """Judge all scans of some boards and count.

    Args:
        bundle: the `.lsb` file.
        folder: with `good` and `defect`, as the folder `pcb`.
        boards: for example `12100`; all if not given.
        runtime: auto, onnx or tflite.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    paths = [path for path in sorted(folder.glob("*/*.jpg")) if boards is None or board_of(path.name) in boards]
    records = [
        record for at in range(0, len(paths), _AT_ONCE) for record in _infer(bundle, paths[at:][:_AT_ONCE], runtime)
    ]
    return _figures(" ".join(sorted({board_of(path.name) for path in paths})), records)


def latency_ms(bundle: Path, runtime: str, runs: int = _RUNS) -> dict[str, float]:
    """Return the time of one scan on one core, preprocessing and network, in milliseconds.

    Returns:
        p50 and p99 by the clock, and p50 of the processor's own time, which others at work on the machine change less.
    """
    opened = load(bundle)
    spec, content = opened.model(runtime)
    session = open_session(spec.runtime, content, spec, threads=1)
    scan = np.repeat(opened.golden(runtime)[0][0], 3, axis=2)
    times, own = [], []
    try:
        for _ in range(runs):
            began, worked = time.perf_counter(), time.process_time()
            session.infer(to_model(image_tensor(scan, INPUT), spec.input))
            times.append((time.perf_counter() - began) * 1e3)
            own.append((time.process_time() - worked) * 1e3)
    finally:
        session.close()
    found = {"p50": np.quantile(times, 0.5), "p99": np.quantile(times, 0.99), "processor_p50": np.quantile(own, 0.5)}
    return {name: round(float(value), 2) for name, value in found.items()}


def _infer(bundle: Path, paths: list[Path], runtime: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "edge", "infer", str(bundle), *map(str, paths), "--json", "--runtime", runtime]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _figures(boards: str, records: list[dict[str, Any]]) -> Figures:
    paths = [Path(record["path"]) for record in records]
    bad = np.array([path.parent.name != "good" for path in paths])
    verdicts = np.array([record["verdict"] for record in records])
    judged = np.array([bool(record["scores"]) for record in records])
    scores = np.array([1 - record["scores"]["good"] if record["scores"] else np.nan for record in records])
    passed, diverted = verdicts == "pass", verdicts == "divert"
    both = len(np.unique(bad[judged])) == 2
    named = [_names_right(path, record) for path, record in zip(paths, records, strict=True) if record["scores"]]
    present = [right for right in named if right is not None]
    rejected = None
    if both:
        threshold = np.quantile(scores[judged & bad], 1 - RECALL, method="lower")
        rejected = round(float(np.mean(scores[judged & ~bad] >= threshold)), 4)
    return Figures(
        boards=boards,
        scans=len(records),
        defective=int(bad.sum()),
        auroc=round(auroc(bad[judged], scores[judged]), 5) if both else None,
        recall=round(float(np.mean(~passed[bad])), 4) if bad.any() else 1.0,
        false_rejects_at_99_recall=rejected,
        coverage=round(float(np.mean(passed | diverted)), 4),
        escapes=int(np.sum(passed & bad)),
        escape_interval=interval(int(np.sum(passed & bad)), max(int(passed.sum()), 1)),
        false_rejects=int(np.sum(diverted & ~bad)),
        false_reject_interval=interval(int(np.sum(diverted & ~bad)), max(int(diverted.sum()), 1)),
        named_kind_present=round(float(np.mean(present)), 4) if present else None,
        turned_away=int(np.sum(~judged)),
    )


def _names_right(path: Path, record: dict[str, Any]) -> bool | None:
    """Whether the likeliest kind is among the scan's boxes; None for clean scans."""
    if path.parent.name == "good":
        return None
    kinds = {KINDS[int(kind) - 1] for kind in read_boxes(path.with_suffix(".boxes.txt"))[:, 4]}
    return max(KINDS, key=lambda kind: record["scores"][kind]) in kinds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.pcb.measure", description="Measure a bundle.")
    add_option(parser, "pcb")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--runtime", choices=("auto", "onnx", "tflite"), default="auto")
    parser.add_argument("--board", action="append", help="repeatable (default: all)")
    parser.add_argument("--latency", action="store_true", help="only the time of one scan on one core")
    options = parser.parse_args()
    if options.latency:
        for engine in ("onnx", "tflite"):
            print(json.dumps({"runtime": engine, "latency_ms": latency_ms(options.bundle, engine)}))
    else:
        measured = measure(options.bundle, folder_of("pcb", options.data), options.board, options.runtime)
        print(json.dumps(asdict(measured), indent=1))
