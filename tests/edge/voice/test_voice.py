"""Speech is found where it was put: real synthesized speech in silence and in noise, by each detector."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.errors import ConfigError
from edge.preprocess import F32, resample
from edge.sound import decode_wav
from edge.sources.segments import Segmenter, open_segmenter
from edge.voice.settings import CascadeSettings
from edge.voice.silero import FRAME, CascadeSegmenter, SileroDetector
from models.spoken_digits.speak import Synthesiser, Utterance, draw, trimmed
from tests.data import real_data
from tests.edge.voice.write_reference import STORED, frames, meeting, sentence

RATE_HZ = 16_000
KINDS = ("webrtc", "silero", "cascade")


@pytest.fixture(scope="module")
def words() -> list[F32]:
    rng = np.random.default_rng(3)
    said: list[Utterance] = [draw(rng, digit) for digit in (3, 7, 9)]
    with Synthesiser() as synthesiser:
        return [trimmed(resample(synthesiser.say(one), synthesiser.rate_hz, RATE_HZ)) for one in said]


def placed(words: list[F32], pause_s: float = 1.5, noise: float = 0.0) -> tuple[F32, list[tuple[int, int]]]:
    """Return the words in silence, and where each begins and ends, in samples."""
    pause = np.zeros(round(pause_s * RATE_HZ), np.float32)
    parts, truth, at = [pause], [], len(pause)
    for word in words:
        truth.append((at, at + len(word)))
        parts += [word, pause]
        at += len(word) + len(pause)
    sound = np.concatenate(parts)
    return (sound + np.random.default_rng(1).normal(0, noise, len(sound))).astype(np.float32), truth


def heard(segmenter: Segmenter, sound: F32, block: int = 320) -> list[tuple[int, int]]:
    found = [segment for at in range(0, len(sound), block) for segment in segmenter.add(sound[at : at + block])]
    last = segmenter.flush()
    return [(segment.start, segment.start + len(segment.samples)) for segment in [*found, *([last] if last else [])]]


@pytest.mark.parametrize("kind", KINDS)
def test_each_word_is_one_segment_around_it(kind: str, words: list[F32]) -> None:
    sound, truth = placed(words)
    found = heard(open_segmenter({"kind": kind}, RATE_HZ), sound)
    assert len(found) == len(truth)
    for (start, end), (first, last) in zip(found, truth, strict=True):
        assert start <= first + 0.1 * RATE_HZ
        assert end >= last - 0.1 * RATE_HZ
        assert end - start <= last - first + RATE_HZ


@pytest.mark.parametrize("kind", KINDS)
def test_silence_is_no_segment(kind: str) -> None:
    quiet = np.random.default_rng(2).normal(0, 1e-4, 5 * RATE_HZ).astype(np.float32)
    assert heard(open_segmenter({"kind": kind}, RATE_HZ), quiet) == []


@pytest.mark.parametrize("kind", KINDS)
def test_size_of_the_blocks_changes_nothing(kind: str, words: list[F32]) -> None:
    sound, _ = placed(words[:1])
    one, other = (heard(open_segmenter({"kind": kind}, RATE_HZ), sound, block) for block in (123, 4096))
    assert one == other


@pytest.mark.parametrize("kind", ["silero", "cascade"])
def test_network_does_not_take_loud_noise_for_speech(kind: str) -> None:
    loud = np.random.default_rng(4).normal(0, 0.1, 4 * RATE_HZ).astype(np.float32)
    assert heard(open_segmenter({"kind": kind}, RATE_HZ), loud) == []


def test_network_rests_while_the_cheap_detector_hears_nothing(words: list[F32]) -> None:
    segmenter = CascadeSegmenter(CascadeSettings(), RATE_HZ)
    calls: list[int] = []
    real = segmenter._detector.probability
    segmenter._detector.probability = lambda frame: calls.append(1) or real(frame)  # type: ignore[func-returns-value,method-assign]
    heard(segmenter, np.zeros(10 * RATE_HZ, np.float32))
    assert len(calls) == 0
    heard(segmenter, placed(words[:1])[0])
    assert 5 < len(calls) < (len(words[0]) + 1.2 * RATE_HZ) / FRAME


@pytest.mark.parametrize("kind", KINDS)
def test_short_words_after_a_silence_are_heard(kind: str) -> None:
    rng, paths = np.random.default_rng(7), sorted(real_data("spoken-digits").glob("*.wav"))
    parts: list[F32] = []
    for index in rng.permutation(len(paths))[:100]:
        pause = rng.normal(0, 1e-4, round(rng.uniform(0.7, 1.3) * RATE_HZ)).astype(np.float32)
        parts += [pause, resample(*decode_wav(paths[index].read_bytes()), RATE_HZ)]
    sound = np.concatenate([*parts, np.zeros(RATE_HZ, np.float32)])
    found = heard(open_segmenter({"kind": kind, "hang_over_ms": 200}, RATE_HZ), sound)
    assert 99 <= len(found) <= 100


def test_listening_to_silence_costs_a_small_part_of_real_time() -> None:
    segmenter = open_segmenter({"kind": "cascade"}, RATE_HZ)
    quiet = np.random.default_rng(2).normal(0, 1e-4, 30 * RATE_HZ).astype(np.float32)
    started = time.process_time()
    heard(segmenter, quiet)
    assert (time.process_time() - started) / 30 <= 0.03


@pytest.mark.parametrize(
    ("settings", "rate_hz", "words"),
    [
        ({"kind": "webrtc"}, 44_100, "expected a sample rate"),
        ({"kind": "silero"}, 8_000, "at 16000 Hz"),
        ({"kind": "silero", "begin": 0.3, "end": 0.5}, RATE_HZ, "must not be above"),
        ({"kind": "webrtc", "aggressiveness": 4}, RATE_HZ, "aggressiveness"),
        ({"kind": "psychic"}, RATE_HZ, "expected one of"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], rate_hz: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_segmenter(settings, rate_hz)


@pytest.mark.parametrize(("name", "sound"), [("sentence", sentence), ("meeting", meeting)])
def test_probabilities_are_those_of_the_networks_own_code(name: str, sound: Callable[[], F32]) -> None:
    stored = json.loads(STORED.read_text())[name]
    detector = SileroDetector()
    ours = [detector.probability(frame) for frame in frames(sound())]
    assert len(ours) == len(stored)
    # To the bit here; another processor's vector instructions may round another way.
    assert np.abs(np.subtract(ours, stored)).max() < 1e-4
    assert min(ours) < 0.1 and max(ours) > 0.9


def test_probabilities_separate_peoples_speech_in_meetings() -> None:
    """Against people's own segments; the network's own code gives the same over all of these recordings."""
    from sklearn.metrics import roc_auc_score

    folder = real_data("meeting-vad")
    scores: list[float] = []
    truth: list[bool] = []
    for path in sorted(folder.glob("*.wav"))[:4]:
        sound, rate_hz = decode_wav(path.read_bytes())
        assert rate_hz == RATE_HZ
        segments = people(folder, path.stem)
        detector = SileroDetector()
        for at in range(0, len(sound) // FRAME * FRAME, FRAME):
            scores.append(detector.probability(sound[at : at + FRAME]))
            truth.append(any(first <= (at + FRAME / 2) / RATE_HZ < last for first, last in segments))
    assert roc_auc_score(truth, scores) > 0.93


def people(folder: Path, name: str) -> list[tuple[float, float]]:
    rows = [line.split() for line in (folder / "train.rttm").read_text().splitlines()]
    return [(float(row[3]), float(row[3]) + float(row[4])) for row in rows if row[1] == name]
