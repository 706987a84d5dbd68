"""Reads the recordings of spoken digits, what is no digit, and the speech that is synthesised beside them.

Rules:
- Recordings 0 to 9 of every speaker are never trained on and set no threshold: they are for measuring.
- Digits come first among the labels, as characters; what is no digit is `unknown`, what is no speech is `silence`.
- Of the words that are no digits some are never trained on, so that `unknown` is measured on words never heard.
- Sound goes through the device's own `edge.preprocess`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.preprocess import resample
from models.commands import data as commands
from models.sounds.augment import level
from models.sounds.clips import read
from models.spoken_digits.accents import accented
from models.spoken_digits.speak import WORDS, Synthesiser, Utterance, draw, utterances

F32 = NDArray[np.float32]

INPUT = commands.INPUT.model_copy(update={"log_floor": 0.1})
"""MLPerf Tiny's 49 × 10 MFCC. Its bands end at 4 kHz, where recordings of 8 kHz end as well. The floor, about 60 dB
below the loudest, hides how quiet a room or a file is around the words, by which speakers differ and digits do not."""
DIGITS = [str(digit) for digit in range(10)]
UNKNOWN, SILENCE = "unknown", "silence"
LABELS = [*DIGITS, UNKNOWN, SILENCE]
UNKNOWN_INDEX, SILENCE_INDEX = 10, 11
FIRST_TRAINED = 10
"""Recordings with a lower number are kept for measuring."""
SYNTHETIC = "synthetic"
"""Speaker of all synthesised speech."""
TRAINED_WORDS = ("down", "go", "no", "on", "right", "stop", "up", "yes")
UNHEARD_WORDS = ("left", "off")
"""Folders of Speech Commands: what is trained on as unknown, and what only measures it."""
MIXED_WORDS = "_unknown_"
"""Folder of eleven other words. Three of them are digits; a file's name begins with its word."""
PALINDROMES = (6, 9)
"""Digits that sound much the same backwards: never played backwards as something that is no digit."""
TRAIN_NOISE, TEST_NOISE = (1, 2), (3,)
"""Folds of ESC-10."""
OTHER_WORDS = (
    "hello", "okay", "start", "help", "open", "close", "light", "door", "water", "paper", "table", "window",
    "music", "phone", "camera", "apple", "orange", "monday", "sunday", "morning", "summer", "winter", "river",
    "mountain", "people", "money", "school", "garden", "kitchen", "number", "eleven", "twelve", "hundred",
    "thousand", "maybe", "never", "always", "please", "thanks", "sorry", "ready", "cancel", "repeat", "again",
    "wait", "finish", "house", "tree", "bird", "happy", "follow", "learn", "visual", "forward", "backward", "good",
    "bad", "box", "line", "part", "scratch", "broken", "machine", "red", "green", "blue", "white", "black",
    "yellow",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """One sound at INPUT.sample_rate_hz."""

    name: str
    label: int
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


def load_words(folder: Path, classes: tuple[str, ...], label: int) -> list[Recording]:
    """Read words of Speech Commands, cut close to the word, sorted by name.

    Args:
        folder: the folder `speech-commands`.
        classes: its folders.
        label: given to all of them.
    """
    paths = [path for name in classes for path in sorted((folder / name).glob("*.wav"))]
    return [
        Recording(
            f"{path.parent.name}/{path.stem}",
            label,
            path.stem.split("_")[0],
            FIRST_TRAINED,
            spoken_part(read(path, INPUT.sample_rate_hz)),
        )
        for path in paths
    ]


def load_mixed(folder: Path) -> list[Recording]:
    """Read the mixed words of Speech Commands, digits among them, cut close to the word, sorted by name.

    Args:
        folder: the folder `speech-commands`.
    """
    made: list[Recording] = []
    for path in sorted((folder / MIXED_WORDS).glob("*.wav")):
        word, speaker = path.name.split("_")[:2]
        label = WORDS.index(word) if word in WORDS else UNKNOWN_INDEX
        sound = spoken_part(read(path, INPUT.sample_rate_hz))
        made.append(Recording(f"{MIXED_WORDS}/{path.stem}", label, speaker, FIRST_TRAINED, sound))
    return made


def spoken_part(sound: F32, floor: float = 0.02) -> F32:
    """Return the sound without what is quieter than `floor` of its loudest 20 ms before and after it."""
    size = INPUT.sample_rate_hz // 50
    power = np.convolve(np.square(sound), np.ones(size) / size, "same")
    loud = np.flatnonzero(power > floor * power.max(initial=0.0))
    return sound[max(int(loud[0]) - size, 0) : int(loud[-1]) + size] if len(loud) else sound


def synthesise(count: int, seed: int) -> list[Recording]:
    """Return synthesised digits of many voices."""
    return _said(list(utterances(count, seed)))


def synthesise_accents(count: int, seed: int) -> list[Recording]:
    """Return synthesised digits as speakers of other languages say them."""
    said = _said(list(accented(count, seed)))
    return [replace(one, label=number % 10) for number, one in enumerate(said)]


def synthesise_others(count: int, seed: int) -> list[Recording]:
    """Return synthesised words that are no digits."""
    rng = np.random.default_rng(seed)
    drawn = [draw(rng, 0) for _ in range(count)]
    return _said([replace(one, word=OTHER_WORDS[int(rng.integers(len(OTHER_WORDS)))]) for one in drawn])


def spoiled(recordings: list[Recording], count: int, rng: np.random.Generator) -> list[Recording]:
    """Return sounds that are no digits, made of digits: played backwards, or half of one and half of another.

    They keep the network from knowing a digit by its microphone.
    """
    made: list[Recording] = []
    by_speaker: dict[str, list[Recording]] = {}
    for one in recordings:
        by_speaker.setdefault(one.speaker, []).append(one)
    turnable = [one for one in recordings if one.label not in PALINDROMES]
    for number in range(count):
        if number % 2:
            one = recordings[int(rng.integers(len(recordings)))]
            others = [item for item in by_speaker[one.speaker] if item.label != one.label]
            other = others[int(rng.integers(len(others)))]
            samples = np.concatenate([other.samples[len(other.samples) // 2 :], one.samples[: len(one.samples) // 2]])
        else:
            one = turnable[int(rng.integers(len(turnable)))]
            samples = one.samples[::-1]
        made.append(replace(one, label=UNKNOWN_INDEX, samples=np.ascontiguousarray(samples, np.float32)))
    return made


def silences(noises: dict[str, list[F32]], count: int, rng: np.random.Generator) -> list[Recording]:
    """Return pieces of noise of 0.2 to 1.2 s at any level."""
    kinds = sorted(noises)
    made: list[Recording] = []
    while len(made) < count:
        kind = kinds[int(rng.integers(len(kinds)))]
        clip = noises[kind][int(rng.integers(len(noises[kind])))]
        length = int(rng.uniform(0.2, 1.2) * INPUT.sample_rate_hz)
        start = int(rng.integers(max(len(clip) - length, 1)))
        part = clip[start : start + length]
        if level(part) > 1e-4:
            made.append(Recording(f"{kind}/{len(made)}", SILENCE_INDEX, "noise", FIRST_TRAINED, part))
    return made


def _said(drawn: list[Utterance]) -> list[Recording]:
    with Synthesiser() as synthesiser:
        return [
            Recording(
                f"{one.word or one.digit}_{one.voice}",
                UNKNOWN_INDEX if one.word else one.digit,
                SYNTHETIC,
                FIRST_TRAINED + number,
                resample(synthesiser.say(one), synthesiser.rate_hz, INPUT.sample_rate_hz),
            )
            for number, one in enumerate(drawn)
        ]


def _recording(path: Path) -> Recording:
    digit, speaker, number = path.stem.split("_")
    return Recording(path.stem, int(digit), speaker, int(number), read(path, INPUT.sample_rate_hz))
