"""Sound: what is decoded, what is refused and with which words; files by the standard library or by hand."""

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.sound import MAX_DURATION_S, MAX_VALUES, decode_wav

RATE_HZ = 8000
SEED = 3
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def _sine(count: int = 800) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(count) / RATE_HZ)


def pcm(samples: NDArray[np.float64], bits: int = 16, channels: int = 1, rate_hz: int = RATE_HZ) -> bytes:
    """Return a PCM file as the standard library writes it; `samples` in −1…1."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(bits // 8)
        file.setframerate(rate_hz)
        file.writeframes(_integers(samples, bits))
    return stream.getvalue()


def riff(form: bytes, data: bytes, *, before: bytes = b"", claim: int | None = None) -> bytes:
    """Return a WAV file with any format chunk at all."""
    size = len(data) if claim is None else claim
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + before + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def form(code: int, bits: int, channels: int = 1, rate_hz: int = RATE_HZ) -> bytes:
    """Return the plain part of a format chunk."""
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", code, channels, rate_hz, rate_hz * frame, frame, bits)


def extensible(code: int, bits: int, channels: int = 1) -> bytes:
    """Return an extensible format chunk."""
    return form(0xFFFE, bits, channels) + struct.pack("<HHIH", 22, bits, 0, code) + _GUID_TAIL


def _integers(samples: NDArray[np.float64], bits: int) -> bytes:
    full = 2.0 ** (bits - 1)
    values = np.clip(np.round(samples * full), -full, full - 1).astype(np.int64)
    if bits == 8:
        return (values + 128).astype(np.uint8).tobytes()
    return b"".join(int(value).to_bytes(bits // 8, "little", signed=True) for value in values)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_pcm_of_each_width_gives_the_samples_back(bits: int) -> None:
    samples, rate_hz = decode_wav(pcm(_sine(), bits))
    assert rate_hz == RATE_HZ and samples.dtype == np.float32 and samples.shape == (800,)
    assert np.abs(samples - _sine()).max() <= 2.0 ** -(bits - 1) + 1e-6


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_lowest_and_highest_integers_reach_full_scale_and_no_further(bits: int) -> None:
    samples, _ = decode_wav(pcm(np.array([-1.0, 1.0, 0.0]), bits))
    assert samples[0] == -1.0 and 0.98 < samples[1] <= 1.0 and samples[2] == 0.0


@pytest.mark.parametrize(("dtype", "bits"), [("<f4", 32), ("<f8", 64)])
@pytest.mark.parametrize("make", [form, extensible])
def test_float_gives_the_samples_back(dtype: str, bits: int, make: object) -> None:
    header = form(3, bits) if make is form else extensible(3, bits)
    samples, _ = decode_wav(riff(header, _sine().astype(dtype).tobytes()))
    assert np.abs(samples - _sine()).max() < 1e-6


def test_extensible_pcm_is_read_like_plain_pcm() -> None:
    samples, _ = decode_wav(riff(extensible(1, 24), _integers(_sine(), 24)))
    assert np.abs(samples - _sine()).max() < 1e-6


def test_channels_become_one_by_their_mean() -> None:
    left, right = _sine(), -0.5 * _sine()
    samples, _ = decode_wav(pcm(np.stack([left, right], axis=1).reshape(-1), channels=2))
    assert samples.shape == (800,)
    assert np.abs(samples - (left + right) / 2).max() < 1e-4


def test_float_beyond_full_scale_is_clipped() -> None:
    samples, _ = decode_wav(riff(form(3, 32), np.array([2.0, -3.0, 0.25], "<f4").tobytes()))
    assert samples.tolist() == [1.0, -1.0, 0.25]


def test_other_chunks_before_the_samples_are_passed_over() -> None:
    note = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    samples, _ = decode_wav(riff(form(1, 16), _integers(_sine(), 16), before=note))
    assert np.abs(samples - _sine()).max() < 1e-4


@pytest.mark.parametrize("cut", [1, 4, 11, 12, 20, 30, 43, 44, 45, 46, 1000])
def test_file_cut_short_anywhere_is_refused(cut: int) -> None:
    _refused(pcm(_sine())[:cut], "cut short|not a WAV|no sound")


def test_odd_number_of_bytes_is_refused() -> None:
    _refused(riff(form(1, 16), b"abc"), "whole frames")


def test_empty_and_soundless_files_are_refused() -> None:
    _refused(b"", "empty")
    _refused(pcm(np.array([])), "no sound")


def test_header_of_a_recording_that_was_never_finished_is_refused() -> None:
    _refused(riff(form(1, 16), _integers(_sine(), 16), claim=0xFFFFFFFF), "cut short: 4294967295 bytes were announced")


@pytest.mark.parametrize("raw", [b"ID3\x04mp3 or so" * 40, bytes(4000), b"RIFF\0\0\0\0WEBPVP8 " + bytes(300)])
def test_what_is_no_wav_is_refused(raw: bytes) -> None:
    _refused(raw, "not a WAV")


@pytest.mark.parametrize(("code", "bits"), [(6, 8), (7, 8), (17, 4), (85, 0), (1, 12), (3, 16)])
def test_other_codings_are_refused_by_number(code: int, bits: int) -> None:
    _refused(riff(form(code, bits), bytes(64)), f"format {code} of {bits} bits")


def test_samples_before_their_format_are_refused() -> None:
    _refused(b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 4) + bytes(4), "before their format")


@pytest.mark.parametrize("rate_hz", [0, 999, 10**7])
def test_impossible_rates_are_refused(rate_hz: int) -> None:
    _refused(riff(form(1, 16, rate_hz=rate_hz), bytes(64)), "sample rate")


@pytest.mark.parametrize("channels", [0, 65])
def test_impossible_channels_are_refused(channels: int) -> None:
    _refused(riff(form(1, 16, channels=channels), bytes(130)), "channels")


def test_numbers_that_are_not_finite_are_refused() -> None:
    _refused(riff(form(3, 32), np.array([0.0, np.nan], "<f4").tobytes()), "not finite")
    _refused(riff(form(3, 64), np.array([0.0, np.inf], "<f8").tobytes()), "not finite")


def test_longer_sound_than_one_decision_can_be_about_is_refused() -> None:
    whole = bytes(2 * 1000 * MAX_DURATION_S)
    assert len(decode_wav(riff(form(1, 16, rate_hz=1000), whole))[0]) == 1000 * MAX_DURATION_S
    _refused(riff(form(1, 16, rate_hz=1000), whole + bytes(2000)), "at most 600 s of sound, got 601 s")


def test_more_samples_than_memory_is_meant_for_are_refused() -> None:
    whole = riff(form(1, 8, channels=8, rate_hz=48_000), bytes(MAX_VALUES))
    assert len(decode_wav(whole)[0]) == MAX_VALUES // 8
    _refused(riff(form(1, 8, channels=8, rate_hz=48_000), bytes(MAX_VALUES + 8)), "at most 9,600,000 samples")


@given(st.binary(max_size=200), st.integers(0, 100))
@settings(max_examples=300)
def test_damaged_bytes_give_sound_or_words_and_nothing_else(noise: bytes, at: int) -> None:
    raw = bytearray(pcm(_sine(60)))
    raw[at : at + len(noise)] = noise
    for candidate in (bytes(raw), b"RIFF\0\0\0\0WAVE" + noise):
        try:
            samples, rate_hz = decode_wav(candidate)
        except SourceError as error:
            assert str(error) and error.retry is False
        else:
            assert samples.ndim == 1 and np.isfinite(samples).all() and rate_hz >= 1000


def test_file_on_disk_reads_as_the_standard_library_reads_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    path = tmp_path / "noise.wav"
    path.write_bytes(pcm(rng.uniform(-1, 1, 5000)))
    with wave.open(str(path)) as file:
        expected = np.frombuffer(file.readframes(5000), "<i2") / 32768
    assert np.array_equal(decode_wav(path.read_bytes())[0], expected.astype(np.float32))


def _refused(raw: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        decode_wav(raw)
    assert caught.value.retry is False
