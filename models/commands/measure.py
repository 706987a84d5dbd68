"""Measures a bundle on folders of clips: `python -m models.commands.measure --clips DIR`.

Rules:
- Each clip goes the way of a device: gate, preprocessing, engine, calibration, threshold.
- Right is the likeliest label, accepted or not; a sound that the gate turned away has none and is wrong.
- The clips of `speech-commands` here were trained on; figures that count come from cross-validation (see the card).
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import load
from edge.engines import Engine, EngineSettings, open_engine
from edge.steps import judge
from edge.values import Judgement, StationSettings, Window
from edge.work import Work
from models.commands.augment import Noises, noisy
from models.commands.data import INPUT, LABELS, SILENCE, TEST_NOISE, Clip, load_clips
from models.commands.scores import interval, share
from models.realdata import folder_of
from models.sounds.clips import noises

BUNDLE = Path(__file__).parent / "commands-1.0.0.lsb"
_SEED = 5


@dataclass(frozen=True)
class Figures:
    """How a bundle did on some clips."""

    clips: int
    accuracy: float
    interval: tuple[float, float]
    """95 %, drawn over speakers."""
    coverage: float
    """Share that was accepted."""
    wrong_share: float
    """Of the accepted ones."""
    turned_away: int
    by_class: dict[str, float]
    by_speaker: dict[str, float]
    """Of those who speak: silence has no speaker."""


def measure(bundle: Path, clips: list[Clip], noise: Noises | None = None, snr_db: float = 10.0) -> Figures:
    """Judge clips as a device would, and count.

    Args:
        bundle: the `.lsb` file.
        clips: from `load_clips`.
        noise: mixed in, one excerpt a clip; None for none.
        snr_db: power of the clip over that of the noise.
    """
    rng = np.random.default_rng(_SEED)
    engine = open_engine(load(bundle), EngineSettings(isolation="inline", deadline_s=60.0))
    try:
        judged = [
            _judged(engine, noisy(clip, clip.samples, noise, snr_db, rng) if noise else clip.samples) for clip in clips
        ]
    finally:
        engine.session.close()
    truth = [LABELS[clip.label] for clip in clips]
    right = np.array([one.label == label for one, label in zip(judged, truth, strict=True)])
    accepted = np.array([one.verdict == "accept" for one in judged])
    speakers = sorted({clip.speaker for clip in clips if LABELS[clip.label] != SILENCE})
    return Figures(
        clips=len(clips),
        accuracy=share(right),
        interval=interval(right, np.array([clip.speaker for clip in clips])),
        coverage=share(accepted),
        wrong_share=share(~right[accepted]) if accepted.any() else 0.0,
        turned_away=sum(one.label is None for one in judged),
        by_class={label: share(right[[name == label for name in truth]]) for label in LABELS if label in truth},
        by_speaker={who: share(right[[clip.speaker == who for clip in clips]]) for who in speakers},
    )


def _judged(engine: Engine, samples: NDArray[Any]) -> Judgement:
    window = Window("measure", "clip", "clip", "audio/wav", samples, sample_rate_hz=INPUT.sample_rate_hz)
    return judge(Work(window, StationSettings(station="measure", deadline_ms=float("inf")), engine))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.commands.measure", description="Measure a bundle.")
    parser.add_argument("--clips", type=Path, default=None, help="class folders (default: speech-commands of the data)")
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets (default: $LINESIDE_DATA)")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--snr-db", type=float, default=None, help="mix noise in, of folds never trained on")
    options = parser.parse_args()
    mixed = None
    if options.snr_db is not None:
        mixed = noises(folder_of("noise", options.data), TEST_NOISE, INPUT.sample_rate_hz)
    found = load_clips(options.clips or folder_of("speech-commands", options.data))
    print(json.dumps(vars(measure(options.bundle, found, mixed, options.snr_db or 0.0))))
