"""Writes the golden JSON of a release: `python -m tests.contract.write_golden 0.2`.

Rules:
- Existing files are never changed: they are what devices in the field send.
"""

import json
import sys
from pathlib import Path

from tests.contract.samples import SAMPLES

GOLDEN = Path(__file__).parent / "golden"


def main() -> None:
    """Write one file per sample that has none."""
    folder = GOLDEN / sys.argv[1]
    folder.mkdir(parents=True, exist_ok=True)
    for sample in SAMPLES:
        path = folder / f"{type(sample).__name__}.json"
        if not path.exists():
            path.write_text(json.dumps(sample.model_dump(mode="json"), indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
