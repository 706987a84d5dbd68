"""Writes a spoken sentence into a folder, to try a phone and its prediction server with.

Rules:
- It is real speech: the golden example of the bundle, a sentence of a LibriVox book (public domain).
- It appears under its name only when it is whole, because a phone may be watching the folder.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from edge.bundle import load
from edge.sound import encode_wav

BUNDLE, RUNTIME, RATE_HZ = Path(__file__).parent / "sentences-1.0.0.lsb", "whisper", 16_000
NAME = "sentence.wav"
QUIET_S = 0.5
"""Before and behind it, so that the end of speech is heard."""


def wav() -> bytes:
    """Return the sentence as a WAV file of 16 bits at 16 kHz."""
    window = np.asarray(load(BUNDLE).golden(RUNTIME)[0][0], np.float32).ravel()
    said = window[: int(np.flatnonzero(window)[-1]) + 1]
    quiet = np.zeros(round(QUIET_S * RATE_HZ), np.float32)
    return encode_wav(np.concatenate([quiet, said, quiet]), RATE_HZ)


def main() -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description="Write a spoken sentence into a folder.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{NAME}"
    unfinished.write_bytes(wav())
    unfinished.rename(folder / NAME)
    print(folder / NAME)
    return 0


if __name__ == "__main__":
    sys.exit(main())
