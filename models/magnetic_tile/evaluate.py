"""Measures magnetic_tile by part, and the leaky figure beside it: `python -m models.magnetic_tile.evaluate --data DIR`.

Rules:
- Every tile is judged by an int8 network that never saw it, trained as the shipped one.
"""

import argparse
import json
from pathlib import Path

from models.magnetic_tile.crossval import SEED, cross_validated, leaky_auroc
from models.magnetic_tile.data import load_photos
from models.magnetic_tile.fit import make_pool
from models.magnetic_tile.measure import figures, worst
from models.magnetic_tile.train import LOOKS
from models.realdata import folder_of

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.magnetic_tile.evaluate", description="Measure by part.")
    parser.add_argument("--data", type=Path, default=None, help="folder with magnetic-tile/ (default: $LINESIDE_DATA)")
    options = parser.parse_args()
    photos = load_photos(folder_of("magnetic-tile", options.data))
    pool = make_pool(photos, LOOKS, SEED)
    _, scored = cross_validated(photos, pool)
    leaky = round(leaky_auroc(photos, pool), 4)
    print(json.dumps({**figures(scored), "auroc_random_split_leaky": leaky, "worst": worst(scored, 6)}, indent=2))
