"""Reads the recordings of spoken digits, and the speech that is synthesised beside them.

Rules:
- Recordings 0 to 9 of every speaker are never trained on and set no threshold: they are for measuring.
- Sound goes through the device's own `edge.preprocess`.
- Labels are the digits as characters, as the files are named.
"""

import hashlib
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import resample
from edge.wire.manifest import AudioInput
from models.spoken_digits.speak import Synthesiser, utterances

F32 = NDArray[np.float32]

INPUT = AudioInput(sample_rate_hz=8000, window_s=1.0)
"""61 frames of 32 mel bands."""
LABELS = [str(digit) for digit in range(10)]
FIRST_TRAINED = 10
"""Recordings with a lower number are kept for measuring."""
SYNTHETIC = "synthetic"
"""Speaker of all synthesised speech."""


@dataclass(frozen=True)
class Recording:
    """One spoken digit at INPUT.sample_rate_hz."""

    name: str
    digit: int
    speaker: str
    number: int
    samples: F32

    @property
    def trainable(self) -> bool:
        """Whether it may be trained on."""
        return self.number >= FIRST_TRAINED


def load_recordings(folder: Path) -> list[Recording]:
    """Read all `{digit}_{speaker}_{n}.wav`, sorted by name.

    Args:
        folder: the folder `spoken-digits`.

    Raises:
        FileNotFoundError: it holds no recordings.
    """
    paths = sorted(folder.glob("*_*_*.wav"))
    if not paths:
        raise FileNotFoundError(f"{folder}: expected recordings named digit_speaker_n.wav, found none")
    return [_recording(path) for path in paths]


def synthesise(count: int, seed: int) -> list[Recording]:
    """Return synthesised digits of many voices."""
    with Synthesiser() as synthesiser:
        return [
            Recording(
                f"{utterance.digit}_{utterance.voice}",
                utterance.digit,
                SYNTHETIC,
                FIRST_TRAINED + number,
                resample(synthesiser.say(utterance), synthesiser.rate_hz, INPUT.sample_rate_hz),
            )
            for number, utterance in enumerate(utterances(count, seed))
        ]


def digest_of(recordings: list[Recording]) -> str:
    """Return one SHA-256 over the names and samples of recordings, in their order."""
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update(recording.name.encode() + b"\0" + recording.samples.tobytes())
    return digest.hexdigest()


def _recording(path: Path) -> Recording:
    digit, speaker, number = path.stem.split("_")
    with wave.open(str(path), "rb") as file:
        rate_hz = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)
    sound = resample(samples, rate_hz, INPUT.sample_rate_hz)
    return Recording(path.stem, int(digit), speaker, int(number), sound)
