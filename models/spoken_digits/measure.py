"""Measures a bundle on spoken digits through `lineside-edge infer`: `python -m models.spoken_digits.measure`.

Rules:
- The command a person would type does the work; this file only counts.
- Right is the likeliest label, accepted or not; a sound that the gate turned away has none and is wrong.
- Noise is of a fold of ESC-10 that no network here was trained on, one excerpt a recording, the same at every run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.sound import encode_wav
from export.thresholds import upper_bound
from models.realdata import add_option, folder_of
from models.sounds import augment
from models.sounds.clips import F32, noises, read
from models.spoken_digits.data import FIRST_TRAINED
from models.spoken_digits.speak import LANGUAGES

BUNDLE = Path(__file__).parent / "spoken_digits-1.2.0.lsb"


RATE_HZ = 8000
"""Of the recordings."""
TEST_NOISE = (3,)
"""Fold of ESC-10."""
_SEED = 5


@dataclass(frozen=True)
class Figures:
    """How a bundle did on some recordings."""

    recordings: int
    right_share: float
    right_interval: tuple[float, float]
    """95 %, Clopper and Pearson."""
    coverage: float
    """Share that was accepted."""
    wrong_share: float
    """Of the accepted ones."""
    turned_away: int
    """Recordings that the gate did not let through."""
    per_group: dict[str, float]
    """Right share by speaker (the second part of the name; of a synthesised voice its language)."""


def measure(bundle: Path, paths: list[Path], runtime: str = "auto") -> Figures:
    """Judge wav files named `{digit}_{speaker}_…` and count.

    Args:
        bundle: the `.lsb` file.
        paths: the recordings.
        runtime: auto, onnx or tflite.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    command = [sys.executable, "-m", "edge", "infer", str(bundle), *map(str, paths), "--json", "--runtime", runtime]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    accepted = [record for record in records if record["verdict"] == "accept"]
    speakers = sorted({_speaker(record) for record in records})
    return Figures(
        recordings=len(records),
        right_share=_share(records, _right),
        right_interval=_interval(sum(map(_right, records)), len(records)),
        coverage=round(len(accepted) / max(len(records), 1), 4),
        wrong_share=round(1 - _share(accepted, _right), 4) if accepted else 0.0,
        turned_away=sum(record["label"] is None for record in records),
        per_group={who: _share([r for r in records if _speaker(r) == who], _right) for who in speakers},
    )


def held_out(folder: Path) -> list[Path]:
    """Return the recordings that were kept for measuring."""
    paths = sorted(folder.glob("*_*_*.wav"))
    return [path for path in paths if int(path.stem.split("_")[2]) < FIRST_TRAINED]


def with_noise(paths: list[Path], noise: dict[str, list[F32]], snr_db: float, folder: Path) -> list[Path]:
    """Write noisy copies of recordings under the same names; return where.

    Args:
        paths: the recordings.
        noise: by kind, at `RATE_HZ`.
        snr_db: power of a recording over that of its noise.
        folder: where the copies go.
    """
    rng = np.random.default_rng(_SEED)
    for path in paths:
        sound = read(path, RATE_HZ)
        both = augment.mixed(sound, augment.excerpt(noise, len(sound), rng), snr_db)
        (folder / path.name).write_bytes(encode_wav(both, RATE_HZ))
    return [folder / path.name for path in paths]


def _right(record: dict[str, Any]) -> bool:
    return bool(record["label"] == _part(record, 0))


def _part(record: dict[str, Any], index: int) -> str:
    return Path(record["path"]).stem.split("_")[index]


def _speaker(record: dict[str, Any]) -> str:
    name = _part(record, 1)
    return next((language for language in sorted(LANGUAGES, key=len, reverse=True) if name.startswith(language)), name)


def _share(records: list[dict[str, Any]], holds: Callable[[dict[str, Any]], bool]) -> float:
    return round(sum(map(holds, records)) / max(len(records), 1), 4)


def _interval(count: int, total: int) -> tuple[float, float]:
    low = 1.0 - upper_bound(total - count, total, 0.025) if count else 0.0
    return round(low, 4), round(upper_bound(count, total, 0.025), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.spoken_digits.measure", description="Measure a bundle.")
    add_option(parser, "spoken-digits")
    parser.add_argument("--folder", type=Path, default=None, help="measure on all wav files of this folder instead")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--runtime", choices=("auto", "onnx", "tflite"), default="auto")
    parser.add_argument("--snr-db", type=float, default=None, help="mix noise in, of a fold never trained on")
    options = parser.parse_args()
    chosen = (
        sorted(options.folder.glob("*.wav")) if options.folder else held_out(folder_of("spoken-digits", options.data))
    )
    with tempfile.TemporaryDirectory() as copies:
        if options.snr_db is not None:
            heard = noises(folder_of("noise", options.data), TEST_NOISE, RATE_HZ)
            chosen = with_noise(chosen, heard, options.snr_db, Path(copies))
        print(json.dumps(asdict(measure(options.bundle, chosen, options.runtime))))
