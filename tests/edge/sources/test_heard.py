"""Seconds of running sound: level, speech and clipping of all that is listened to, whatever was found in it."""

import math

import numpy as np
import pytest

from edge.sources.heard import MAX_WAITING, Heard, Seconds, dbfs, together

RATE_HZ = 16_000
BLOCK = 320


def fed(seconds: Seconds, sound: np.ndarray, active: int) -> list[Heard]:
    for at in range(0, len(sound), BLOCK):
        seconds.add(sound[at : at + BLOCK].astype(np.float32), active)
    return seconds.take()


def test_second_of_half_speech_is_one_of_half_speech() -> None:
    seconds = Seconds(RATE_HZ)
    times = np.arange(RATE_HZ) / RATE_HZ
    (heard,) = fed(seconds, 0.5 * np.sin(2 * np.pi * 440 * times), BLOCK // 2)
    assert (heard.seconds, heard.speech_share, heard.clipped) == (1.0, 0.5, 0.0)
    assert heard.level_dbfs == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)


def test_what_is_less_than_a_second_waits_for_the_rest() -> None:
    seconds = Seconds(RATE_HZ)
    assert fed(seconds, np.zeros(RATE_HZ - BLOCK), 0) == []
    assert len(fed(seconds, np.zeros(BLOCK), 0)) == 1
    assert seconds.take() == []


def test_clipped_samples_are_a_share_of_all() -> None:
    sound = np.zeros(RATE_HZ)
    sound[: RATE_HZ // 4] = -1.0
    (heard,) = fed(Seconds(RATE_HZ), sound, 0)
    assert heard.clipped == 0.25


def test_seconds_add_up_by_their_power_and_length() -> None:
    both = together([Heard(1.0, 1.0, 0.5, 0.1), Heard(3.0, 0.0, 0.0, 0.0)])
    assert both == Heard(4.0, 1.0, 0.125, 0.025)
    assert both.speech_share == 0.25 and both.level_dbfs == pytest.approx(10 * math.log10(0.025))
    assert together([]) is None


def test_seconds_that_nobody_takes_are_bounded() -> None:
    seconds = Seconds(100)
    for number in range(MAX_WAITING + 5):
        seconds.add(np.full(100, number / 1000, np.float32), 0)
    taken = seconds.take()
    assert len(taken) == MAX_WAITING and taken[0].power == pytest.approx(0.005**2, rel=1e-4)


def test_silence_has_a_level_that_can_be_written_down() -> None:
    assert dbfs(0.0) == -120.0
