"""Trains pcb and writes its bundle: `lineside-export train pcb`, or `python -m models.pcb.train --data FOLDER`.

Rules:
- Each board is scored by an int8 network that never saw it; those scores alone set calibration, thresholds and figures.
  The smallest board is left out together with the next: that asks more of the network, and saves a training.
- The shipped network is trained on all boards, by the same steps.
- A trained network is kept under `work/` by the digest of its data, its settings and its code, so that a run that
  was cut off goes on where it ended.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edge.calibrate import probabilities
from export import calibration, golden, onnx_export
from export.build import BuildReport, build_bundle
from export.provenance import code_commit
from export.quantize import quantize
from export.recipe import BuildData, Labelled, Recipe, split_by_group
from models.kept import keep
from models.pcb import augment, figures, fit, network
from models.pcb.data import INPUT, LABELS, SIDE, Scan, as_values, board_of, digest_of_files, load_scans, pair_of
from models.realdata import add_option, folder_of

NAME, VERSION = "pcb", "1.0.0"
HERE = Path(__file__).parent
WORK = HERE / "work"
STEPS, SEED = 600, 1
_CREATED_AT = "2026-11-23T20:00:00Z"
_RANGE_SCANS = 64
_TOGETHER = {"12000": "12100"}
"""Boards that are left out with another one."""
_PILOT_SHARE, _PILOT_SEED = 0.12, 1
"""Of the pairs: a bound of 1 % takes 368 pairs without error, so few may be spent on calibration and thresholds."""
_SURE = 0.9
"""The pilot's own estimate of how likely a decision must be right to be made alone."""
_NOTE = (
    "pairs of one board are alike, so they are less independent than the bound takes them to be: four boards stand "
    "behind these scores, each judged by a network that never saw it"
)


def main(version: str = VERSION, out: Path | None = None, data: Path | None = None) -> BuildReport:
    """Train one network per board left out and the final one, and write the bundle.

    Args:
        version: there is one.
        out: the bundle to write; default beside this file.
        data: the folder that holds `pcb`; default `$LINESIDE_DATA`.

    Raises:
        KeyError: there is no such version.
        ConfigError: the data is not there.
    """
    if version != VERSION:
        raise KeyError(version)
    folder = folder_of("pcb", data)
    scans = load_scans(folder)
    scored = _cross_validated(scans)
    final = trained(scans)
    pilot, heldout = split_by_group(_labelled(scored), _PILOT_SHARE, _PILOT_SEED)
    build_data = BuildData(
        quantize=as_values(_spread(scans, _RANGE_SCANS)),
        heldout=heldout,
        pilot=pilot,
        reference=[np.repeat(scan.picture[..., None], 3, axis=2) for scan in scans],
        golden=_golden(scans),
    )
    recipe = replace(_recipe(folder, scans, figures.table(scored)), fixed_thresholds=_thresholds(pilot))
    report = build_bundle(recipe, final, build_data, out or HERE / f"{NAME}-{VERSION}.lsb")
    assert heldout.groups is not None
    keep(report, "each board by a network that never saw it", np.array([board_of(pair) for pair in heldout.groups]))
    return report


def judged(data: Path | None = None) -> tuple[Labelled, NDArray[np.str_]]:
    """Return all scans with logits of networks that never saw their board, and the boards; for `models.kept`.

    Raises:
        ConfigError: the data is not there.
    """
    labelled = _labelled(_cross_validated(load_scans(folder_of("pcb", data))))
    assert labelled.groups is not None
    return labelled, np.array([board_of(pair) for pair in labelled.groups])


def trained(scans: list[Scan]) -> network.BoardNet:
    """Return the network trained on these scans, from `work/` if it was trained before."""
    path = WORK / f"{_digest(scans)[:16]}.pt"
    if path.exists():
        found = network.BoardNet()
        found.load_state_dict(torch.load(path, weights_only=True))
        return found.eval()
    made = fit.fit(scans, steps=STEPS, seed=SEED)
    WORK.mkdir(exist_ok=True)
    torch.save(made.state_dict(), path)
    return made


def left_out(board: str) -> str:
    """Return the board that stands for those left out together with this one."""
    return _TOGETHER.get(board, board)


def int8_logits(made: network.BoardNet, seen: list[Scan], unseen: list[Scan]) -> NDArray[np.float32]:
    """Return logits (n, 7) of the network's int8 form; its ranges are set by scans that it was trained on."""
    ranges = as_values(_spread(seen, _RANGE_SCANS))
    quantized = quantize(onnx_export.float_onnx(made, (1, SIDE, SIDE)), ranges)
    return golden.outputs(quantized.shipped, quantized.spec, as_values(unseen))


def _thresholds(pilot: Labelled) -> tuple[float, float]:
    """Return (pass_max, divert_min) at which a logistic fit to the pilot's defect scores is sure enough."""
    assert pilot.logits is not None
    calibrated = calibration.fit(pilot.logits, pilot.labels, "temperature").calibration
    defect = np.clip(1 - probabilities(pilot.logits, calibrated)[:, 0], 1e-6, 1 - 1e-6)
    model = LogisticRegression().fit(np.log(defect / (1 - defect))[:, None], pilot.labels > 0)
    slope, offset, wanted = model.coef_[0, 0], model.intercept_[0], np.log(_SURE / (1 - _SURE))
    odds = np.exp(np.array([-wanted - offset, wanted - offset]) / slope)
    pass_max, divert_min = (round(float(value), 4) for value in odds / (1 + odds))
    return pass_max, divert_min


def _cross_validated(scans: list[Scan]) -> list[figures.Scored]:
    scored = [_fold(scans, board) for board in sorted({scan.board for scan in scans})]
    figures.save(scored, WORK)
    return scored


def _labelled(scored: list[figures.Scored]) -> Labelled:
    scans = [scan for part in scored for scan in part.scans]
    return Labelled(
        as_values(scans),
        np.concatenate([part.labels() for part in scored]),
        np.array([pair_of(scan.name) for scan in scans]),
        np.concatenate([part.logits for part in scored]),
    )


def _fold(scans: list[Scan], board: str) -> figures.Scored:
    print(f"without board {board}", file=sys.stderr)
    seen = [scan for scan in scans if left_out(scan.board) != left_out(board)]
    unseen = [scan for scan in scans if scan.board == board]
    made = trained(seen)
    scored = figures.Scored(board, unseen, int8_logits(made, seen, unseen), figures.boxes(made, unseen))
    print(json.dumps({board: scored.figures()}), file=sys.stderr)
    return scored


def _spread(scans: list[Scan], count: int) -> list[Scan]:
    return [scans[int(index)] for index in np.linspace(0, len(scans) - 1, min(count, len(scans)))]


def _golden(scans: list[Scan]) -> NDArray[np.uint8]:
    """Return a clean and a defective scan per board; scans of two colours pack into few bytes."""
    firsts: dict[tuple[str, bool], Scan] = {}
    for scan in scans:
        firsts.setdefault((scan.board, scan.defective), scan)
    return as_values([scan for (board, _), scan in firsts.items() if board != "12000"])


def _digest(scans: list[Scan]) -> str:
    digest = hashlib.sha256(f"{STEPS} {SEED} {torch.__version__}".encode())
    for module in (augment, fit, network):
        digest.update(Path(str(module.__file__)).read_bytes())
    for scan in scans:
        digest.update(scan.name.encode() + scan.picture.tobytes() + scan.boxes.tobytes())
    return digest.hexdigest()


def _recipe(folder: Path, scans: list[Scan], measured: dict[str, Any]) -> Recipe:
    lineage: dict[str, Any] = {
        "code": code_commit(),
        "recipe": "models/pcb/train.py",
        "dataset": "DeepPCB (github.com/tangsanli5201/DeepPCB), MIT",
        "dataset_digest": digest_of_files(folder),
        "training_scans": len(scans),
        "hyperparameters": {"steps": STEPS, "batch": fit.BATCH, "peak_rate": fit.PEAK_RATE, "crop": augment.CROP},
        "seed": SEED,
    }
    return Recipe(
        name=NAME,
        version=VERSION,
        task="inspect",
        input=INPUT,
        labels=LABELS,
        created_at=_CREATED_AT,
        description="Scans of bare printed circuit boards, clean or with one of six kinds of defects.",
        alpha_escape=0.01,
        alpha_false_reject=0.02,
        delta=0.05,
        calibration="temperature",
        unit="pair",
        guarantee_note=_NOTE,
        runtimes=("onnx", "tflite"),
        prefer="tflite",
        memory_bytes=64 * 2**20,
        lineage=lineage,
        metrics={"boards_never_seen": measured},
        limits=HERE / "limits.toml",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.pcb.train", description="Train and pack pcb.")
    add_option(parser, "pcb")
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(VERSION, options.out, options.data)
    print(f"{report.path} {report.ref.size_bytes} bytes", report.figures)
