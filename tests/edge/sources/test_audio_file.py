"""Sound files heard as a microphone would hear them: segments, pace, what was decided, what is said of silence."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError
from edge.sound import decode_wav, encode_wav
from edge.sources import open_source
from edge.sources.audio_file import HeardFiles
from edge.sources.ear import Ear, level_dbfs
from edge.sources.heard import Seconds
from edge.sources.interface import Hearing
from edge.sources.reopening import ReopeningSource
from edge.sources.segments import F32, open_segmenter
from edge.values import Window
from tests.edge.sources.fakestream import FakeDevice, microphone
from tests.edge.sources.fakestream import silence as silence_i16
from tests.edge.sources.fakestream import tone as tone_i16

RATE_HZ = 16_000
ENERGY = {"kind": "energy", "hang_over_ms": 300}


def silence(seconds: float) -> F32:
    return np.random.default_rng(1).normal(0, 1e-4, round(seconds * RATE_HZ)).astype(np.float32)


def tone(seconds: float, hertz: float = 440.0) -> F32:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def two_words() -> F32:
    return np.concatenate([silence(0.5), tone(0.4), silence(0.8), tone(0.3), silence(0.6)])


def put(path: Path, sound: F32, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(sound, rate_hz))
    return path


def opened(path: Path, seen: Callable[[str], bool] = lambda _key: False, **settings: Any) -> HeardFiles:
    values = {"path": str(path), "watch": False, "segments": ENERGY, **settings}
    source = open_source("audio_file", values, seen=seen, clock=SystemClock())
    assert isinstance(source, HeardFiles)
    return source


def drained(source: HeardFiles) -> list[Window]:
    windows: list[Window] = []
    until_s = time.monotonic() + 20
    while not source.exhausted:
        assert time.monotonic() < until_s
        window = source.read(0.1)
        if window is not None:
            windows.append(window)
    return windows


def test_file_becomes_its_segments_with_place_and_hang_over(tmp_path: Path) -> None:
    windows = drained(opened(put(tmp_path / "a.wav", two_words())))
    assert [window.name for window in windows] == ["a.wav at 0.30 s", "a.wav at 1.50 s"]
    assert len({window.key for window in windows}) == 2
    shares = [0.4 / (0.2 + 0.4 + 0.3), 0.3 / (0.2 + 0.3 + 0.3)]  # of pre-roll, tone and hang-over
    assert [window.speech_share for window in windows] == pytest.approx(shares, abs=0.03)
    for window in windows:
        assert window.hang_over_ms == pytest.approx(300, abs=1) and window.waited_ms == 0
        assert window.encode is not None and window.data is not None and not window.live
        samples, rate_hz = decode_wav(window.encode())
        assert rate_hz == RATE_HZ and np.array_equal(samples, window.data)


def test_segment_that_was_decided_is_not_given_again(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", two_words())
    first, second = drained(opened(path))
    assert [window.key for window in drained(opened(path, lambda key: key == first.key))] == [second.key]


def test_file_of_another_rate_is_brought_to_the_rate_and_kept_without_loss(tmp_path: Path) -> None:
    loud = np.concatenate([silence(0.5)[::2], np.sign(tone(0.4)[::2]), silence(0.8)[::2]])
    (window,) = drained(opened(put(tmp_path / "a.wav", loud, 8000)))
    assert window.sample_rate_hz == RATE_HZ and window.data is not None and window.encode is not None
    assert np.array_equal(decode_wav(window.encode())[0], window.data)
    assert np.abs(window.data).max() <= 1.0


def test_speech_to_the_very_end_is_a_segment_without_hang_over(tmp_path: Path) -> None:
    (window,) = drained(opened(put(tmp_path / "a.wav", np.concatenate([silence(0.4), tone(0.4)]))))
    assert window.hang_over_ms == 0


def test_file_in_which_nobody_speaks_is_told(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", silence(1.0))
    put(tmp_path / "b.wav", two_words())
    source = opened(tmp_path)
    assert len(drained(source)) == 2
    (news,) = source.news()
    assert news.name == "nothing_heard" and "a.wav" in news.detail
    assert source.news() == []


def test_file_that_cannot_be_decoded_is_a_window_and_the_next_is_heard(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"rubbish")
    put(tmp_path / "b.wav", two_words())
    windows = drained(opened(tmp_path))
    assert [window.problem is None for window in windows] == [False, True, True]


def test_real_time_takes_as_long_as_the_sound_and_gives_words_when_they_were_said(tmp_path: Path) -> None:
    source = opened(put(tmp_path / "a.wav", two_words()), real_time=True)
    started, given = time.monotonic(), []
    while not source.exhausted:
        window = source.read(0.1)
        if window is not None:
            given.append((time.monotonic() - started, window))
    took_s = time.monotonic() - started
    assert 2.5 < took_s < 4.0
    (first_s, first), _ = given
    assert 1.2 <= first_s < 1.2 + 0.5, "half a second of silence, 0.4 of sound, 0.3 until it is known to be over"
    assert 0 <= first.waited_ms < 500 and first.hang_over_ms == pytest.approx(300, abs=1)


def test_as_fast_as_can_be_still_lets_go_in_time(tmp_path: Path) -> None:
    source = opened(put(tmp_path / "a.wav", np.concatenate([silence(1.0)] * 300)))
    started = time.monotonic()
    assert source.read(0.05) is None
    assert time.monotonic() - started < 1.0 and not source.exhausted


def test_closed_in_the_middle_of_a_file_it_ends(tmp_path: Path) -> None:
    source = opened(put(tmp_path / "a.wav", two_words()), real_time=True)
    source.read(0.1)
    source.close()
    assert source.exhausted and source.listening is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"segments": {"kind": "energy", "threshold": 1}}, "threshold"),
        ({"segments": {"kind": "silero"}, "rate_hz": 8000}, "16000 Hz"),
        ({"segments": None, "real_time": True}, "real_time needs segments"),
    ],
    ids=["segmenter", "rate", "pace"],
)
def test_mistake_in_the_settings_is_named(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(put(tmp_path / "a.wav", two_words()), **settings)


def test_what_is_heard_now_is_level_and_speech(tmp_path: Path) -> None:
    ear = Ear(open_segmenter(ENERGY, RATE_HZ), Seconds(RATE_HZ))
    heard = [ear.now]
    for block in (silence(0.02), tone(0.02)):
        ear.hear(block)
        heard.append(ear.now)
    before, quiet, loud = heard
    assert before is None and quiet is not None and loud is not None
    assert not quiet.active and -85 < quiet.level_dbfs < -75
    assert loud.active and loud.level_dbfs == pytest.approx(20 * math.log10(0.3 / math.sqrt(2)), abs=0.5)
    assert level_dbfs(np.zeros(320, np.float32)) == -120


def test_what_is_heard_is_there_through_the_sources_wrapper(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", np.concatenate([silence(0.3), tone(3.0)]))
    source = ReopeningSource("audio_file", lambda: opened(path, real_time=True), SystemClock(), lambda _problem: None)
    heard, until_s = [source.listening], time.monotonic() + 10
    while heard[-1] is None or not heard[-1].active:
        source.read(0.05)
        heard.append(source.listening)
        assert time.monotonic() < until_s
    source.close()
    assert heard[0] is None and source.listening is None


def test_microphone_says_what_it_hears_and_how_long_it_waited_for_the_end() -> None:
    said = np.concatenate([silence_i16(0.5), tone_i16(0.4), silence_i16(0.6)])
    source = microphone(FakeDevice(said, dies=False), SystemClock(), segments=ENERGY)
    window = source.read(5)
    assert window is not None and window.hang_over_ms == pytest.approx(300, abs=1)
    assert window.speech_share is not None and 0.1 < window.speech_share < 0.9
    assert isinstance(source, Hearing) and source.listening is not None and not source.listening.active
    source.close()
