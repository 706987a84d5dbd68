"""Reads spoken sentences and single words with what was said, and says when a text is right.

Rules:
- A text is right if it is what was said once both are written alike (Whisper's own rules for English: case, signs,
  numbers, titles), word for word.
- The unit is the speaker: the official names of clips say who it is; of a book it is its one reader.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import AudioInput
from models.commands.data import WORDS
from models.sounds.augment import excerpt, mixed
from models.sounds.clips import noises, read

F32 = NDArray[np.float32]

INPUT = AudioInput(sample_rate_hz=16_000, window_s=15.0, features="waveform", place="start", min_s=0.2)
"""Long enough for a segment of the voice front end (10 s at most), and for the recogniser's shortest window."""
TEST_NOISE = (3,)
"""Fold of ESC-10."""


@dataclass(frozen=True)
class Utterance:
    """Something that was said, at INPUT.sample_rate_hz."""

    name: str
    text: str
    speaker: str
    samples: F32


def load_sentences(folder: Path) -> list[Utterance]:
    """Read the sentences that `transcripts.json` in the folder lists."""
    listed = json.loads((folder / "transcripts.json").read_text())
    return [
        Utterance(item["file"], item["text"], _reader(item["file"]), read(folder / item["file"], INPUT.sample_rate_hz))
        for item in listed
    ]


def load_words(folder: Path, per_speaker: int) -> list[Utterance]:
    """Read so many clips of every speaker, each another of the ten commands, all commands about as often."""
    by_speaker: dict[str, dict[str, Path]] = {}
    for word in WORDS:
        for path in sorted((folder / word).glob("*.wav"), reverse=True):
            by_speaker.setdefault(path.name.partition("_")[0], {})[word] = path
    found: list[Utterance] = []
    taken: Counter[str] = Counter()
    for speaker, clips in sorted(by_speaker.items()):
        for word in sorted(clips, key=lambda word: (taken[word], word))[:per_speaker]:
            taken[word] += 1
            name = f"{word}/{clips[word].name}"
            found.append(Utterance(name, word, speaker, read(clips[word], INPUT.sample_rate_hz)))
    return found


def in_noise(utterances: Iterable[Utterance], folder: Path, snr_db: float, seed: int) -> list[Utterance]:
    """Return the same in noise of a fold that no recipe trains on."""
    rng = np.random.default_rng(seed)
    sounds = noises(folder, TEST_NOISE, INPUT.sample_rate_hz)
    return [
        replace(one, samples=mixed(one.samples, excerpt(sounds, len(one.samples), rng), snr_db)) for one in utterances
    ]


def is_right(text: str, said: str) -> bool:
    """Return whether a recognised text is what was said."""
    return written(text) == written(said)


def written(text: str) -> str:
    """Return a text as both sides of a comparison are written."""
    from whisper_normalizer.english import EnglishTextNormalizer

    return str(EnglishTextNormalizer()(text)).strip()


def _reader(name: str) -> str:
    match = re.match(r"(?:an|cen)\d+-(\w+)-b", name)
    return match[1] if match else re.sub(r"-?\d+\.wav$", "", name)
