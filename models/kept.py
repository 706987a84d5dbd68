"""Keeps scores of real data beside a bundle, for `lineside-bench risk`; `python -m models.kept NAME` makes them anew.

Rules:
- A recipe keeps what its thresholds were proven on: scores of networks that never saw the example's unit, calibrated as
  the shipped one, of examples that the calibration never saw.
- Where a bundle is there and its recipe is not to be run again, the finished network scores the data. It has seen most
  of them: its scores are too good, and the file's name for people says so. They try the rule, not the network.
- A row is a score, whether it is an event, its unit and its block: no picture, no sound, some kilobytes.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import load
from edge.calibrate import probabilities
from edge.wire.manifest import GOOD_LABEL
from export import golden
from export.build import BuildReport
from export.scores import Scores, write
from export.thresholds import Sample
from models.realdata import folder_of

SUFFIX = ".scores.npz"


def keep(report: BuildReport, says: str, block: NDArray[np.generic] | None = None) -> Path:
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


@dataclass(frozen=True)
class _Data:
    """Preprocessed values (n, …), the truth (n,), units and blocks; for inspection the truth is whether it is bad."""

    values: NDArray[Any]
    truth: NDArray[Any]
    unit: NDArray[Any]
    block: NDArray[Any] | None = None


def scored(path: Path, data: _Data) -> Scores:
    """Return the scores that a finished bundle gives."""
    bundle = load(path)
    manifest = bundle.manifest
    spec, content = bundle.model("onnx")
    chances = probabilities(golden.outputs(content, spec, data.values), manifest.calibration)
    if manifest.task == "inspect":
        score, event = 1.0 - chances[:, manifest.labels.index(GOOD_LABEL)], data.truth.astype(np.bool_)
    else:
        score, event = chances.max(1), chances.argmax(1) == data.truth
    sample = Sample(np.clip(score, 0.0, 1.0), event, data.unit)
    name = f"{manifest.name} {manifest.version}, by the finished network, which has seen them"
    return Scores(sample, manifest.task, name, data.block)


def _pcb(data: Path | None) -> _Data:
    from models.pcb.data import as_values, load_scans, pair_of

    scans = load_scans(folder_of("pcb", data))
    pairs, boards = np.array([pair_of(scan.name) for scan in scans]), np.array([scan.board for scan in scans])
    return _Data(as_values(scans), np.array([scan.defective for scan in scans]), pairs, boards)


def _commands(data: Path | None) -> _Data:
    from models.commands.augment import at_snr
    from models.commands.data import load_clips
    from models.commands.train import SEED

    clips = load_clips(folder_of("speech-commands", data))
    labels, speakers = np.array([clip.label for clip in clips]), np.array([clip.speaker for clip in clips])
    return _Data(at_snr(clips, {}, None, SEED), labels, speakers)


def _magnetic_tile(data: Path | None) -> _Data:
    from models.magnetic_tile.crossval import as_values
    from models.magnetic_tile.data import load_photos

    photos = load_photos(folder_of("magnetic-tile", data))
    bad, parts = np.array([photo.defective for photo in photos]), np.array([photo.part for photo in photos])
    return _Data(as_values(photos), bad, parts)


_READ: dict[str, Callable[[Path | None], _Data]] = {
    "commands": _commands,
    "magnetic_tile": _magnetic_tile,
    "pcb": _pcb,
}


def main(chosen: list[str], data: Path | None = None) -> None:
    """Write the scores of some models' bundles beside them."""
    for name in chosen:
        read = _READ[name](data)
        for path in sorted((Path(__file__).parent / name).glob("*.lsb")):
            write(path.with_suffix(SUFFIX), scored(path, read))
            print(path.with_suffix(SUFFIX).name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.kept", description="Score real data by finished bundles.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"models (default: all of {', '.join(_READ)})")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    options = parser.parse_args()
    main(options.names or list(_READ), options.data)
