"""Measures finished bundles on fresh parts under chosen lights: `python -m models.phone_glass.evaluate`.

Rules:
- Parts come from a seed that no training, held-out or reference set uses.
- Every version sees the same pictures, judged by the steps of a device.
- Truth is the label that the convention gives a part; what it calls borderline is counted apart and never as wrong.
- A lamp that ages is shown in fifths of its life.
"""

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from edge.values import Judgement, Window
from export.audit import inspection_figures, judgements
from export.pack import read
from models.phone_glass.convention import BORDERLINE, CONVENTION, length_mm
from models.phone_glass.data import decoded
from models.phone_glass.generate import BATCHES, USUAL, encoded
from models.phone_glass.generator import Studio
from models.phone_glass.parts import FADING, FADING_PARTS, LIGHTS, MIXED, light_of, make_part

_SEED = 41
_HERE = Path(__file__).parent
_COLUMNS = (
    "accuracy",
    "automated",
    "unsure",
    "out_of_distribution",
    "bad_input",
    "escape_share",
    "false_reject_share",
    "wrong_share",
)


def windows(
    light: str, count: int, defect_share: float, seed: int = _SEED, batch: str = USUAL
) -> tuple[list[Window], list[str]]:
    """Return fresh pictures and the label that the convention gives each."""
    studio = Studio()
    shown, truth = [], []
    for at in range(count):
        number = at * FADING_PARTS // count if light == FADING else at
        part = BATCHES[batch](make_part(seed, number, defect_share))
        picture, mask = studio.photograph_with_truth(part, light_of(light, seed, number))
        length = part.mark_mm if part.mark_mm is not None else length_mm(mask)
        shown.append(_window(decoded(encoded(picture)), at))
        truth.append(CONVENTION.label(part.label, length))
    return shown, truth


def figures(made: list[Judgement], truth: list[str]) -> dict[str, Any]:
    """Return the figures of the parts whose label is clear, and how many of the borderline ones went to a person."""
    pairs = list(zip(made, truth, strict=True))
    clear = [(judged, label) for judged, label in pairs if label != BORDERLINE]
    border = [judged for judged, label in pairs if label == BORDERLINE]
    found = inspection_figures([judged for judged, _ in clear], [label for _, label in clear])
    deferred = sum(judged.verdict == "defer" for judged in border)
    return {**found, "borderline": len(border), "borderline_deferred": deferred}


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    rows = []
    for light, batch in itertools.product(options.light, options.batch):
        shown, truth = windows(light, options.parts, options.defect_share, options.seed, batch)
        for path in options.bundle or sorted(_HERE.glob("*.lsb")):
            bundle = read(path)
            made = list(judgements(bundle, shown, options.runtime))
            for name, part in _parts(light, len(made)):
                found = figures(made[part], truth[part])
                rows.append({"version": bundle.ref.version, "light": name, "batch": batch, **found})
    print(json.dumps(rows, indent=1) if options.json else _table(rows))
    return 0


def _parts(light: str, count: int) -> list[tuple[str, slice]]:
    """Return the whole, or for the lamp that ages its fifths."""
    if light != FADING:
        return [(light, slice(None))]
    ends = [count * fifth // 5 for fifth in range(6)]
    return [(f"{light} {fifth + 1}/5", slice(ends[fifth], ends[fifth + 1])) for fifth in range(5)]


def _window(picture: np.ndarray[Any, np.dtype[np.uint8]], number: int) -> Window:
    return Window(source="generator", name=str(number), key=str(number), media_type="image/jpeg", data=picture)


def _table(rows: list[dict[str, Any]]) -> str:
    head = " | ".join(name.replace("_", " ") for name in _COLUMNS)
    lines = [f"| version | light | batch | {head} | borderline, deferred |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (len(_COLUMNS) + 1))
    for row in rows:
        cells = " | ".join(f"{row[column]:.1%}" for column in _COLUMNS)
        border = f"{row['borderline']}, {row['borderline_deferred']}"
        lines.append(f"| {row['version']} | {row['light']} | {row['batch']} | {cells} | {border} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").split(":")[0]
    parser = argparse.ArgumentParser(prog="python -m models.phone_glass.evaluate", description=summary)
    parser.add_argument("bundle", type=Path, nargs="*", help="bundles (default: those beside this file)")
    parser.add_argument("--light", nargs="+", choices=[*LIGHTS, MIXED, FADING], default=["mixed", "dim"])
    parser.add_argument("--batch", nargs="+", choices=list(BATCHES), default=[USUAL])
    parser.add_argument("--parts", type=int, default=1000, help="fresh parts per light (default 1000)")
    parser.add_argument("--seed", type=int, default=_SEED, help=f"series of parts (default {_SEED})")
    parser.add_argument("--defect-share", type=float, default=0.3)
    parser.add_argument("--runtime", choices=["onnx", "tflite"], default=None)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
