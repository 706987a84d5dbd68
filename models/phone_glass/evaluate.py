"""Measures finished bundles on fresh parts under chosen lights: `python -m models.phone_glass.evaluate`.

Rules:
- Parts come from a seed that no training, held-out or reference set uses.
- Every version sees the same pictures, judged by the steps of a device.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.values import Window
from export.audit import inspection_figures, judgements
from export.pack import read
from models.phone_glass.data import seen
from models.phone_glass.generator import Studio
from models.phone_glass.parts import LIGHTS, MIXED, light_of, make_part

_SEED = 41
_HERE = Path(__file__).parent
_COLUMNS = ("accuracy", "automated", "unsure", "bad_input", "escape_share", "false_reject_share", "wrong_share")


def windows(light: str, count: int, defect_share: float, seed: int = _SEED) -> tuple[list[Window], list[str]]:
    """Return fresh pictures and the true label of each."""
    studio = Studio()
    parts = [make_part(seed, number, defect_share) for number in range(count)]
    pictures = [seen(studio, part, light_of(light, seed, part.number), 0) for part in parts]
    return [_window(picture, part.number) for picture, part in zip(pictures, parts, strict=True)], [
        part.label for part in parts
    ]


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    rows = []
    for light in options.light:
        shown, truth = windows(light, options.parts, options.defect_share, options.seed)
        for path in options.bundle or sorted(_HERE.glob("*.lsb")):
            bundle = read(path)
            figures = inspection_figures(list(judgements(bundle, shown, options.runtime)), truth)
            rows.append({"version": bundle.ref.version, "light": light, **figures})
    print(json.dumps(rows, indent=1) if options.json else _table(rows))
    return 0


def _window(picture: np.ndarray[Any, np.dtype[np.uint8]], number: int) -> Window:
    return Window(source="generator", name=str(number), key=str(number), media_type="image/jpeg", data=picture)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| version | light | " + " | ".join(name.replace("_", " ") for name in _COLUMNS) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(_COLUMNS))
    for row in rows:
        lines.append(f"| {row['version']} | {row['light']} | " + " | ".join(f"{row[c]:.1%}" for c in _COLUMNS) + " |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").split(":")[0]
    parser = argparse.ArgumentParser(prog="python -m models.phone_glass.evaluate", description=summary)
    parser.add_argument("bundle", type=Path, nargs="*", help="bundles (default: those beside this file)")
    parser.add_argument("--light", nargs="+", choices=[*LIGHTS, MIXED], default=["mixed", "dim"])
    parser.add_argument("--parts", type=int, default=1000, help="fresh parts per light (default 1000)")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"series of parts (default {_SEED})")
    parser.add_argument("--defect-share", type=float, default=0.3)
    parser.add_argument("--runtime", choices=["onnx", "tflite"], default=None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
