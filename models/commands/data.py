"""Reads the clips of spoken commands, and says which speakers go together.

Rules:
- The official name of a clip says who speaks: all clips of a speaker stand in the same fold.
- Silence has no speaker: each of its clips stands alone.
- Sound goes through the device's own `edge.preprocess`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.foreign.sounds import MLPERF_TINY
from models.sounds.clips import read

F32 = NDArray[np.float32]

INPUT = MLPERF_TINY.model_copy(update={"place": "loudest"})
"""The front end of MLPerf Tiny's keyword network, 49 × 10, around the loudest second."""
WORDS = ["down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes"]
SILENCE, UNKNOWN = "silence", "unknown"
LABELS = [*WORDS, SILENCE, UNKNOWN]
"""In the order of MLPerf Tiny's outputs."""
FOLDS = 5
TRAIN_NOISE, TEST_NOISE = (1, 2), (3,)
"""Folds of ESC-10."""


@dataclass(frozen=True)
class Clip:
    """One second at INPUT.sample_rate_hz."""

    name: str
    label: int
    speaker: str
    samples: F32


def load_clips(folder: Path) -> list[Clip]:
    """Read `{class}/{speaker}_nohash_{n}.wav` of all twelve classes, sorted by name.

    Args:
        folder: the folder `speech-commands`.

    Raises:
        FileNotFoundError: a class has no clips.
    """
    clips: list[Clip] = []
    for index, label in enumerate(LABELS):
        paths = sorted((folder / (f"_{label}_" if label in (SILENCE, UNKNOWN) else label)).glob("*.wav"))
        if not paths:
            raise FileNotFoundError(f"{folder}: expected clips of {label}, found none")
        clips += [_clip(path, index) for path in paths]
    return clips


def folds_of(clips: list[Clip], folds: int = FOLDS, seed: int = 1) -> NDArray[np.intp]:
    """Return the fold of each clip; clips of one speaker share it, folds are about equally large."""
    names, counts = np.unique([clip.speaker for clip in clips], return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order], kind="stable")]
    sizes = np.zeros(folds, int)
    fold_of: dict[str, int] = {}
    for index in order:
        smallest = int(np.argmin(sizes))
        fold_of[str(names[index])] = smallest
        sizes[smallest] += counts[index]
    return np.array([fold_of[clip.speaker] for clip in clips], np.intp)


def _clip(path: Path, label: int) -> Clip:
    speaker = path.stem.split("_")[0]
    if LABELS[label] == SILENCE:
        speaker = f"silence-{speaker}"
    return Clip(f"{path.parent.name}/{path.stem}", label, speaker, read(path, INPUT.sample_rate_hz))
