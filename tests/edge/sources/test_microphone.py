"""The microphone: real sound through the real source; only PortAudio itself is played by a thread of the test."""

import os
import threading

import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.sound import decode_wav
from edge.sources import open_source
from edge.sources.interface import News
from edge.sources.microphone import MicrophoneSource
from edge.sources.reopening import ReopeningSource
from edge.values import Window
from tests.clocks import HeldClock
from tests.edge.sources.fakestream import RATE_HZ, FakeDevice, microphone, silence, tone
from tests.waiting import wait_until

SPOKEN = np.concatenate([silence(0.5), tone(0.4), silence(1.0), tone(0.3, 880), silence(1.0)])


def played(device: FakeDevice) -> MicrophoneSource:
    """Return a source that has got all blocks of the device."""
    source = microphone(device, SystemClock())
    wait_until(device.streams[-1].played.is_set, 5, "the blocks")
    return source


def heard(source: MicrophoneSource) -> list[Window]:
    windows: list[Window] = []
    while (window := source.read(0)) is not None:
        windows.append(window)
    return windows


def test_each_thing_said_is_one_window() -> None:
    source = played(FakeDevice(SPOKEN, dies=False))
    windows = heard(source)
    assert [window.problem for window in windows] == [None, None]
    for window, length_s in zip(windows, (0.4, 0.3), strict=True):
        assert window.data is not None and window.sample_rate_hz == RATE_HZ
        assert len(window.data) / RATE_HZ == pytest.approx(length_s + 0.2 + 0.4, abs=0.041)
        assert np.abs(window.data).max() > 0.2
    assert windows[0].name == "segment 1 at 0.30 s"
    source.close()


def test_segment_becomes_a_wav_only_when_asked_with_the_same_samples() -> None:
    source = played(FakeDevice(SPOKEN, dies=False))
    window = heard(source)[0]
    assert window.raw is None and window.encode is not None
    samples, rate_hz = decode_wav(window.encode())
    assert window.data is not None
    assert rate_hz == RATE_HZ and np.array_equal(samples, window.data)
    source.close()


def test_what_was_said_when_the_device_was_lost_is_deferred_and_the_source_is_gone() -> None:
    source = played(FakeDevice(np.concatenate([silence(0.5), tone(0.4)])))
    (window,) = [source.read(0)]
    assert window is not None and window.data is None
    assert window.problem == "unplugged: the microphone was lost within it"
    with pytest.raises(SourceError, match="unplugged") as caught:
        source.read(0)
    assert caught.value.retry
    source.close()


def test_device_that_stops_without_a_word_is_lost() -> None:
    clock = HeldClock()
    device = FakeDevice(silence(0.1), dies=False)
    source = microphone(device, clock)
    wait_until(device.streams[0].played.is_set, 5, "the blocks")
    assert source.read(0) is None
    clock.forward(2.1)
    with pytest.raises(SourceError, match="unplugged"):
        source.read(0)
    source.close()


def test_device_that_comes_back_is_found_again() -> None:
    clock, device = HeldClock(), FakeDevice(SPOKEN)
    told: list[str | None] = []

    def tell(problem: str | None) -> None:
        told.append(problem)

    source = ReopeningSource("microphone", lambda: microphone(device, clock), clock, tell)
    windows: list[Window] = []

    def read_until_lost() -> bool:
        window = source.read(0.01)
        windows.extend([window] if window else [])
        return source.problem is not None

    wait_until(read_until_lost, 5, "the loss")
    device.there = False
    clock.forward(40)
    assert source.read(0.01) is None
    device.there = True
    clock.forward(40)
    found = len(windows)
    wait_until(lambda: read_until_lost() or len(windows) > found + 1, 5, "the words of the second stream")
    assert len(told) >= 2 and told[0] is not None and told[1] is None
    assert len({window.key for window in windows}) == len(windows) >= 4
    source.close()


def test_segment_that_lost_samples_is_deferred_and_the_others_are_not() -> None:
    block_s = 0.02
    source = played(FakeDevice(SPOKEN, dies=False, lose_before=frozenset({round(0.7 / block_s)})))
    windows = heard(source)
    assert [window.problem for window in windows] == ["incomplete: sound was lost within it", None]
    assert windows[0].encode is not None, "people can listen to it all the same"
    assert source.news() == [
        News("sound_lost", "sound was lost 1 times: deciding is too slow", "warning", {"count": 1})
    ]
    assert source.news() == []
    source.close()


def test_what_waits_is_bounded_and_the_loss_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sources.microphone.MAX_WAITING_S", 2.0)
    source = played(FakeDevice(np.concatenate([silence(5), SPOKEN]), dies=False))
    assert len(source._blocks) == 100
    windows = heard(source)
    assert len(windows) == 1 and source.news()[0].data["count"] > 100
    source.close()


def test_exact_silence_is_a_problem_and_a_quiet_room_is_none() -> None:
    room = played(FakeDevice(silence(11), dies=False))
    muted = played(FakeDevice(np.zeros(11 * RATE_HZ, np.int16), dies=False))
    assert heard(room) == heard(muted) == []
    assert room.problem is None and muted.problem == "dead: exactly silent for 11 s, is it muted?"
    room.close()
    muted.close()


def test_reading_from_another_thread_than_the_devices_loses_nothing() -> None:
    many = np.concatenate([SPOKEN] * 9)
    device = FakeDevice(many, dies=False)
    source = microphone(device, SystemClock())
    windows: list[Window] = []

    def read() -> None:
        while len(windows) < 18:
            window = source.read(0.5)
            if window is None:
                return
            windows.append(window)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join(20)
    assert len(windows) == 18 and all(window.problem is None for window in windows)
    source.close()


@pytest.mark.parametrize("segments", [{"kind": "magic"}, {"loudness": 3}])
def test_wrong_segment_setting_is_named(segments: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="segmenter"):
        open_source("microphone", {"segments": segments}, seen=lambda _key: False, clock=SystemClock())


def test_machine_without_the_library_or_the_device_says_so() -> None:
    if "LINESIDE_MICROPHONE" in os.environ:
        pytest.skip("this machine has a microphone")
    with pytest.raises((ConfigError, SourceError)) as caught:
        open_source("microphone", {}, seen=lambda _key: False, clock=SystemClock())
    assert caught.value.hint


@pytest.mark.skipif("LINESIDE_MICROPHONE" not in os.environ, reason="LINESIDE_MICROPHONE names none of this machine")
def test_real_microphone_gives_blocks() -> None:
    settings = {"device": os.environ["LINESIDE_MICROPHONE"]}
    source = open_source("microphone", settings, seen=lambda _key: False, clock=SystemClock())
    assert isinstance(source, MicrophoneSource)
    wait_until(lambda: source.read(0.1) or source._heard > 0, 10, "blocks")
    source.close()
