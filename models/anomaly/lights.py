"""Says what a station makes of good tiles when the light fails: `python -m models.anomaly.lights --data DIR`.

Rules:
- Pictures go the device's way: gate, network, what is strange, thresholds. Only the exposure is changed, on the raw
  picture; what is shown is good, so whatever is diverted is a false reject.
- Which tiles are shown is drawn with a seed, one picture of each part, so that no part counts twice.
- `--pack` sets the gate anew as the recipe does, without training: network, thresholds and features stay as they are.
  How many known tiles such a gate would turn away is counted for ranges of numbers that did not set it.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, load
from edge.gate import outside
from edge.values import Window
from export import pack, reference
from export.audit import judgements
from models.magnetic_tile.data import FOLDS, Photo, load_photos
from models.realdata import add_option, folder_of

HERE = Path(__file__).parent
BUNDLE = HERE / "anomaly-1.1.0.lsb"
GATE_LEAST = {"brightness": 0.85}
"""Of the lowest reference: the six lights of the line are all known, so less than the dimmest of them is a fault."""
CREATED_AT = "2026-11-28T09:00:00Z"
EXPOSURES = (1.0, 0.5, 0.25, 0.12)
"""Shares of the light; 0.25 is what `export.strange` calls dark."""
COUNT, SEED = 48, 2

U8 = NDArray[np.uint8]


def shares(bundle: Bundle, pictures: list[U8], exposure: float) -> dict[str, float]:
    """Return the share of pictures by what becomes of them: a reason to defer, or `pass` or `divert`.

    Args:
        bundle: judges them.
        pictures: BGR, of good tiles.
        exposure: share of the light that is left.
    """
    made = judgements(bundle, [_window(np.asarray(picture * exposure, np.uint8)) for picture in pictures])
    counts = Counter(one.reason or one.verdict for one in made)
    return {name: round(count / len(pictures), 4) for name, count in sorted(counts.items())}


def drawn(photos: list[Photo], count: int, seed: int) -> list[Photo]:
    """Return one good picture each of `count` parts, under whichever light."""
    rng = np.random.default_rng(seed)
    by_part: dict[int, list[Photo]] = {}
    for photo in photos:
        if not photo.defective:
            by_part.setdefault(photo.part, []).append(photo)
    parts = [by_part[part] for part in sorted(by_part)]
    return [parts[i][int(rng.integers(len(parts[i])))] for i in rng.permutation(len(parts))[:count]]


def turned_away(metrics: dict[str, NDArray[np.float64]], good: NDArray[np.bool_], fold: NDArray[np.intp]) -> int:
    """Return how many pictures a gate turns away that the good pictures of the other folds have set.

    Args:
        metrics: (n,) each, of raw pictures.
        good: (n,).
        fold: (n,) ranges of numbers.
    """
    count = 0
    for number in range(FOLDS):
        others = {name: values[good & (fold != number)] for name, values in metrics.items()}
        limits = reference.gate_limits(others, GATE_LEAST)
        rows = ({name: float(values[i]) for name, values in metrics.items()} for i in np.flatnonzero(fold == number))
        count += sum(outside(row, limits) is not None for row in rows)
    return count


def regated(bundle: Bundle, photos: list[Photo], folder: Path, version: str) -> Bundle:
    """Return the bundle under another version, with the recipe's gate."""
    metrics = reference.measure([_raw(folder, photo) for photo in photos])
    good, fold = np.array([not one.defective for one in photos]), np.array([one.fold for one in photos], np.intp)
    gate = reference.gate_limits({name: values[good] for name, values in metrics.items()}, GATE_LEAST)
    away = {"pictures": len(photos), "turned_away": turned_away(metrics, good, fold)}
    changed = {"version": version, "created_at": CREATED_AT, "gate": gate}
    known = {**bundle.manifest.metrics, "gate_by_other_ranges": away}
    return Bundle(bundle.ref, bundle.manifest.model_copy(update={**changed, "metrics": known}), bundle.files)


def _raw(folder: Path, photo: Photo) -> U8:
    return np.asarray(cv2.imread(str(folder / photo.kind / photo.name), cv2.IMREAD_COLOR), np.uint8)


def _window(picture: U8) -> Window:
    return Window(source="lights", name="", key="", media_type="image/png", data=picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.anomaly.lights", description="Good tiles in less light.")
    add_option(parser, "magnetic-tile")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--pack", metavar="VERSION", help="set the gate anew and write anomaly-VERSION.lsb first")
    options = parser.parse_args()
    data = folder_of("magnetic-tile", options.data)
    everything = load_photos(data)
    opened = load(options.bundle)
    if options.pack:
        made = regated(opened, everything, data, options.pack)
        target = HERE / f"anomaly-{options.pack}.lsb"
        pack.write(made.manifest, dict(made.files), target)
        opened = load(target)
        print(json.dumps(opened.manifest.metrics["gate_by_other_ranges"]))
    read = [_raw(data, one) for one in drawn(everything, COUNT, SEED)]
    for share in EXPOSURES:
        print(json.dumps({"exposure": share, "pictures": len(read), **shares(opened, read, share)}), flush=True)
