"""Writes what the neural detector's own code answers, for the tests: `python -m tests.edge.voice.write_reference`.

Rules:
- The authors' package gives the numbers, not ours: `silero-vad==6.2.3` with torch, in an environment of its own.
- One sound is in the repository, one is of the real recordings, so that a part of it can be compared everywhere.
"""

import json
from pathlib import Path

from benchmarks.voice import reference
from edge.preprocess import F32
from edge.sound import decode_wav
from edge.voice.silero import FRAME
from models.sentences.example import wav
from tests.data import real_data

STORED = Path(__file__).parent / "reference.json"
MEETING = "trn07"


def sentence() -> F32:
    """Return a sentence of a LibriVox book, samples at 16 kHz."""
    return decode_wav(wav())[0]


def meeting() -> F32:
    """Return half a minute of a meeting, samples at 16 kHz."""
    return decode_wav((real_data("meeting-vad") / f"{MEETING}.wav").read_bytes())[0]


def frames(sound: F32) -> list[F32]:
    """Return the whole frames of a sound."""
    return [sound[at : at + FRAME] for at in range(0, len(sound) // FRAME * FRAME, FRAME)]


def main() -> None:
    """Write the probability of each frame of both."""
    found = {}
    for name, sound in (("sentence", sentence()), ("meeting", meeting())):
        hear = reference()
        found[name] = [round(hear(frame), 7) for frame in frames(sound)]
    STORED.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
