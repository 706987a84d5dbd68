"""Measures what can be told from good parts alone: `python -m models.anomaly.evaluate --data DIR`.

Rules:
- Tiles by five folds over ranges of numbers; boards by places and by boards that were never seen.
- Everything is learnt anew from good parts of the other side of each split: tiles take a minute, boards a quarter of an
  hour on one core.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from models.anomaly import boards, tiles
from models.magnetic_tile.data import load_photos
from models.magnetic_tile.measure import figures
from models.pcb.data import load_scans
from models.realdata import folder_of

STEPS = 800
"""Of training on boards: the loss hardly falls any more."""


def evaluate(data: Path | None, sets: list[str]) -> dict[str, Any]:
    """Return the figures of the named sets, `magnetic-tile` and `pcb`.

    Raises:
        ConfigError: the data is not there.
    """
    found: dict[str, Any] = {}
    if "magnetic-tile" in sets:
        photos = load_photos(folder_of("magnetic-tile", data))
        found["magnetic-tile"] = figures(tiles.cross_validated(photos, tiles.see(photos)))
    if "pcb" in sets:
        found["pcb"] = boards.judged(load_scans(folder_of("pcb", data)), STEPS)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.anomaly.evaluate", description="Measure anomaly.")
    parser.add_argument("--data", type=Path, default=None, help="folder with the sets (default: $LINESIDE_DATA)")
    parser.add_argument("--set", action="append", choices=("magnetic-tile", "pcb"), help="repeatable (default: both)")
    options = parser.parse_args()
    print(json.dumps(evaluate(options.data, options.set or ["magnetic-tile", "pcb"]), indent=2))
