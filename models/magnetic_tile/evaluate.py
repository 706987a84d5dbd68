"""Measures magnetic_tile by part, and the leaky figure beside it: `python -m models.magnetic_tile.evaluate --data DIR`.

Rules:
- Every tile is judged by an int8 network that never saw it, trained as the shipped one.
- `--shipped` trains nothing: the finished bundle says where it looks on defects that it has learnt from. That its heat
  map works as shipped is seen by it; how well on new tiles is not.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import load
from export import golden
from models.magnetic_tile.crossval import SEED, as_values, cross_validated, leaky_auroc
from models.magnetic_tile.data import KINDS, Photo, load_photos
from models.magnetic_tile.fit import make_pool
from models.magnetic_tile.measure import Scored, figures, found, interval, worst
from models.magnetic_tile.train import HERE, LOOKS, NAME, VERSION
from models.realdata import folder_of


def shipped(bundle: Path, photos: list[Photo]) -> dict[str, Any]:
    """Return how often the bundle's heat map points at the mask, with its interval by part, and per kind."""
    masked = [photo for photo in photos if photo.mask.any()]
    spec, model = load(bundle).model("onnx")
    heat = golden.split(golden.answers(bytes(model), spec, as_values(masked)), spec).heatmap
    assert heat is not None
    hits = found(Scored(masked, np.zeros(len(masked)), heat))
    kinds, parts = np.array([photo.kind for photo in masked]), np.array([photo.part for photo in masked])
    return {
        "pictures": len(masked),
        "pointing": round(float(hits.mean()), 4),
        "interval": interval(lambda drawn: float(hits[drawn].mean()), parts),
        "pointing_per_kind": {kind: round(float(hits[kinds == kind].mean()), 4) for kind in KINDS if kind in kinds},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.magnetic_tile.evaluate", description="Measure by part.")
    parser.add_argument("--data", type=Path, default=None, help="folder with magnetic-tile/ (default: $LINESIDE_DATA)")
    parser.add_argument("--shipped", action="store_true", help="the finished bundle's heat maps, on tiles it has seen")
    options = parser.parse_args()
    photos = load_photos(folder_of("magnetic-tile", options.data))
    if options.shipped:
        print(json.dumps(shipped(HERE / f"{NAME}-{VERSION}.lsb", photos), indent=2))
        raise SystemExit
    pool = make_pool(photos, LOOKS, SEED)
    _, scored = cross_validated(photos, pool)
    leaky = round(leaky_auroc(photos, pool), 4)
    print(json.dumps({**figures(scored), "auroc_random_split_leaky": leaky, "worst": worst(scored, 6)}, indent=2))
