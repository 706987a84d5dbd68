"""Speaks digits into wav files: `python -m models.spoken_digits.speak --out DIR --count N --seed S`.

Rules:
- Works offline: the voices come with the package `espeakng-loader` (extra `demo`).
- The same seed draws the same words, voices and speeds; the breath of a voice is eSpeak NG's own chance, so samples
  differ from process to process. `truth.csv` says what each file says and who says it how.
- No training library is imported: the demo runs this on a phone's place.
"""

import argparse
import csv
import ctypes
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.preprocess import resample

F32 = NDArray[np.float32]

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LANGUAGES = ("en", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-us-nyc", "en-029")
VARIANTS = (
    "",
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "Alex", "Andy", "Annie", "Gene"),
    *("Lee", "Michael", "adam", "anika", "antonio", "belinda", "benjamin", "caleb", "david", "ed", "edward", "ian"),
    *("john", "linda", "max", "paul", "quincy", "robert", "shelby", "steph", "travis", "victor", "zac"),
)
FILE_RATE_HZ = 16000
"""What a phone's microphone gives for speech."""
MAX_COUNT = 10_000
"""Files in one go: about 400 MB, more is a mistake."""

_SYNCHRONOUS = 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_UTF8 = 1
_MAX_SAMPLES = 22050 * 10
"""Ten seconds for one word: a runaway synthesis ends here."""


@dataclass(frozen=True)
class Utterance:
    """How a word is said."""

    digit: int
    voice: str
    """Name for the synthesiser: language, or language+variant."""
    rate_wpm: int
    pitch: int
    """0…99, 50 is the voice's own."""
    range: int
    """0…99, how much the pitch moves."""
    word: str = ""
    """Said instead of the digit."""


class Synthesiser:
    """eSpeak NG in this process; a context manager, one at a time, since the library keeps its state globally.

    Raises:
        ConfigError: the package is missing, or the library does not start.
    """

    def __init__(self) -> None:
        self._library = _library()
        self._samples: list[F32] = []
        self._callback = _CALLBACK(self._take)

    def __enter__(self) -> Self:
        import espeakng_loader

        folder = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.rate_hz = int(self._library.espeak_Initialize(_SYNCHRONOUS, 200, folder, 0))
        if self.rate_hz <= 0:
            raise ConfigError("espeak-ng does not start", hint="reinstall the package espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._library.espeak_Terminate()

    def say(self, utterance: Utterance) -> F32:
        """Return the sound of a digit, (samples,) float32 in −1…1 at `rate_hz`.

        Raises:
            ConfigError: the synthesiser does not know this voice.
        """
        if self._library.espeak_SetVoiceByName(utterance.voice.encode()) != 0:
            raise ConfigError(f"espeak-ng has no voice {utterance.voice!r}")
        for parameter, value in ((_RATE, utterance.rate_wpm), (_PITCH, utterance.pitch), (_RANGE, utterance.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._samples.clear()
        text = (utterance.word or WORDS[utterance.digit]).encode() + b"\0"
        self._library.espeak_Synth(text, len(text), 0, 0, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return trimmed(np.concatenate(self._samples) if self._samples else np.zeros(0, np.float32))

    def _take(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            values = np.ctypeslib.as_array(samples, (count,)).astype(np.float32)
            self._samples.append(values / np.float32(32768))
        return int(sum(len(part) for part in self._samples) > _MAX_SAMPLES)


def draw(rng: np.random.Generator, digit: int) -> Utterance:
    """Return a digit to be said by some voice at some speed and pitch."""
    variant = VARIANTS[rng.integers(len(VARIANTS))]
    language = LANGUAGES[rng.integers(len(LANGUAGES))]
    return Utterance(
        digit=digit,
        voice=f"{language}+{variant}" if variant else language,
        rate_wpm=int(rng.integers(110, 220)),
        pitch=int(rng.integers(20, 81)),
        range=int(rng.integers(20, 81)),
    )


def utterances(count: int, seed: int) -> Iterator[Utterance]:
    """Yield `count` utterances; every ten hold each digit once, in random order."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, 10):
        for digit in rng.permutation(10)[: count - start]:
            yield draw(rng, int(digit))


def speak(out: Path, count: int, seed: int) -> Path:
    """Write `count` wav files (16 kHz, 16 bit, mono) and `truth.csv` to a folder; return the path of the latter.

    Raises:
        ConfigError: the synthesiser is missing, or `count` is out of bounds.
    """
    if not 0 < count <= MAX_COUNT:
        raise ConfigError(f"count: expected 1 to {MAX_COUNT}, got {count}")
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, 1])
    with Synthesiser() as synthesiser, (out / "truth.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "voice", "rate_wpm", "pitch"])
        for number, utterance in enumerate(utterances(count, seed)):
            name = f"{utterance.digit}_{utterance.voice.replace('+', '-')}_{number:04d}.wav"
            sound = in_room(resample(synthesiser.say(utterance), synthesiser.rate_hz, FILE_RATE_HZ), FILE_RATE_HZ, rng)
            _write(out / name, sound)
            table.writerow([name, utterance.digit, utterance.voice, utterance.rate_wpm, utterance.pitch])
    return out / "truth.csv"


def trimmed(sound: F32, floor: float = 0.01) -> F32:
    """Return the sound without the quiet before and after it."""
    loud = np.flatnonzero(np.abs(sound) > floor * max(float(np.abs(sound).max(initial=0.0)), 1e-9))
    return sound[loud[0] : loud[-1] + 1] if len(loud) else sound


def in_room(sound: F32, rate_hz: int, rng: np.random.Generator) -> F32:
    """Return the sound at a speaking distance: some level, a moment before and after, the faint noise of a room."""
    peak = rng.uniform(0.15, 0.6)
    quiet = [np.zeros(round(rng.uniform(0.05, 0.2) * rate_hz), np.float32) for _ in range(2)]
    said = np.concatenate([quiet[0], sound * (peak / max(float(np.abs(sound).max(initial=0.0)), 1e-6)), quiet[1]])
    noise = rng.normal(0, 10 ** (rng.uniform(-65, -50) / 20), len(said))
    return np.clip(said + noise, -1, 1).astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m models.spoken_digits.speak",
        description="Speak digits into wav files, with truth.csv beside them.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=50, help="how many digits (default: 50)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed draws the same words and voices (default: 0)"
    )
    options = parser.parse_args(arguments)
    try:
        truth = speak(options.out, options.count, options.seed)
    except ConfigError as error:
        print(error.for_people(), file=sys.stderr)
        return 2
    print(f"{options.count} digits spoken, the truth is in {truth}")
    return 0


def _write(path: Path, sound: F32) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(FILE_RATE_HZ)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def _library() -> ctypes.CDLL:
    try:
        import espeakng_loader
    except ImportError as error:
        raise ConfigError("the package espeakng-loader is missing", hint="pip install 'lineside[demo]'") from error
    try:
        library = ctypes.CDLL(espeakng_loader.get_library_path())
    except OSError as error:
        raise ConfigError(
            f"espeak-ng cannot be loaded: {error}", hint="reinstall the package espeakng-loader"
        ) from error
    library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
    library.espeak_SetSynthCallback.argtypes = [_CALLBACK]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    return library


if __name__ == "__main__":
    sys.exit(main())
