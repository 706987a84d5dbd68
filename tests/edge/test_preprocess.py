"""From picture or sound to tensor: shapes as declared, nothing lost that matters, the same bits every time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.preprocess import (
    F32,
    U8,
    audio_shape,
    audio_tensor,
    image_tensor,
    loudest_window,
    preprocess,
    resample,
    resize,
    to_model,
)
from edge.wire.manifest import AudioInput, ImageInput, TensorSpec
from export.foreign.sounds import MLPERF_TINY

SEED = 5
RATE_HZ = 8000
SPEECH = AudioInput(sample_rate_hz=RATE_HZ, window_s=1.0)
sizes = st.integers(1, 400)


def noise(rows: int, columns: int) -> U8:
    """Return a picture of noise."""
    return np.random.default_rng(SEED).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def tone(hertz: float, seconds: float, rate_hz: int = RATE_HZ, amplitude: float = 0.5) -> F32:
    """Return a sine."""
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


@given(sizes, sizes, st.sampled_from(["rgb", "gray"]), st.sampled_from(["stretch", "letterbox"]))
@settings(max_examples=80)
def test_picture_of_any_size_becomes_the_declared_shape(rows: int, columns: int, color: Any, fit: Any) -> None:
    spec = ImageInput(width=40, height=30, color=color, resize=fit)
    got = image_tensor(noise(rows, columns), spec)
    assert got.shape == (1, 30, 40, 3 if color == "rgb" else 1) and got.dtype == np.uint8


@given(sizes, sizes, st.integers(0, 255))
@settings(max_examples=60)
def test_flat_picture_keeps_its_value_exactly(rows: int, columns: int, value: int) -> None:
    flat = np.full((rows, columns, 3), value, np.uint8)
    assert (image_tensor(flat, ImageInput(width=24, height=17)) == value).all()


def test_colours_come_as_red_green_blue() -> None:
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[..., 0] = 200
    assert image_tensor(blue, ImageInput(width=16, height=16))[0, 5, 5].tolist() == [0, 0, 200]
    gray = image_tensor(blue, ImageInput(width=16, height=16, color="gray"))
    assert gray[0, 5, 5].tolist() == [round(0.114 * 200)]


def test_picture_of_the_right_size_passes_unchanged() -> None:
    picture = noise(30, 40)
    assert resize(picture, 40, 30) is picture
    assert np.array_equal(image_tensor(picture, ImageInput(width=40, height=30))[0], picture[:, :, ::-1])


def test_whole_number_shrinking_is_the_mean_of_every_pixel() -> None:
    picture = noise(60, 80)
    expected = picture.reshape(20, 3, 20, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize(picture, 20, 20).astype(float) - expected).max() <= 1.0


def test_fine_mark_is_not_lost_to_shrinking() -> None:
    for at in range(20, 40):
        marked = np.full((1000, 1000, 3), 200, np.uint8)
        marked[at + 300 : at + 304, 500:504] = 0
        darkness = 200 - resize(marked, 100, 100).astype(int)
        assert darkness.sum() == pytest.approx(3 * 16 * 200 / 100, abs=6), f"of the mark at {at} something is lost"


def test_letterbox_keeps_proportions_on_black_in_the_middle() -> None:
    white = np.full((100, 200, 3), 255, np.uint8)
    got = image_tensor(white, ImageInput(width=40, height=40, resize="letterbox"))[0]
    assert (got[10:30] == 255).all() and (got[:10] == 0).all() and (got[30:] == 0).all()
    tall = image_tensor(white.transpose(1, 0, 2).copy(), ImageInput(width=40, height=40, resize="letterbox"))[0]
    assert np.array_equal(tall, got.transpose(1, 0, 2))


def test_sliver_of_a_picture_still_has_a_pixel_in_the_letterbox() -> None:
    sliver = np.full((1, 4000, 3), 255, np.uint8)
    got = image_tensor(sliver, ImageInput(width=64, height=64, resize="letterbox"))
    assert (got == 255).sum() == 64 * 3


def test_same_input_gives_the_same_bits() -> None:
    picture, sound = noise(317, 211), tone(440, 1.3)
    spec = ImageInput(width=64, height=64)
    assert np.array_equal(image_tensor(picture, spec), image_tensor(picture.copy(), spec))
    assert np.array_equal(audio_tensor(sound, RATE_HZ, SPEECH), audio_tensor(sound.copy(), RATE_HZ, SPEECH))


@given(st.integers(1, 30_000), st.sampled_from([8000, 16_000, 11_025, 44_100, 48_000]))
@settings(max_examples=60)
def test_sound_of_any_length_and_rate_becomes_the_declared_shape(count: int, rate_hz: int) -> None:
    sound = np.random.default_rng(SEED).uniform(-1, 1, count).astype(np.float32)
    got = audio_tensor(sound, rate_hz, SPEECH)
    assert got.shape == audio_shape(SPEECH) and got.dtype == np.float32 and np.isfinite(got).all()


@pytest.mark.parametrize(
    "spec",
    [
        SPEECH,
        AudioInput(sample_rate_hz=16_000, window_s=0.5, frame_ms=25, hop_ms=10, mel_bands=40, high_hz=7600),
        AudioInput(sample_rate_hz=8000, window_s=2.0, frame_ms=64, hop_ms=64, mel_bands=20),
    ],
)
def test_declared_shape_is_the_shape(spec: AudioInput) -> None:
    assert audio_tensor(np.zeros(999, np.float32), 8000, spec).shape == audio_shape(spec)


def test_silence_is_the_floor_and_tones_light_up_their_own_band() -> None:
    silent = audio_tensor(np.zeros(RATE_HZ, np.float32), RATE_HZ, SPEECH)
    assert np.allclose(silent, silent[0, 0, 0, 0]) and silent.max() < -1.5
    bands = [int(audio_tensor(tone(hz, 1.0), RATE_HZ, SPEECH)[0, 30, :, 0].argmax()) for hz in (200, 600, 1500, 3500)]
    assert bands == sorted(bands) and len(set(bands)) == 4
    assert bands[-1] > 28


def test_louder_is_higher_by_the_square_of_its_amplitude() -> None:
    soft, loud = (audio_tensor(tone(600, 1.0, amplitude=a), RATE_HZ, SPEECH)[0, 30, :, 0].max() for a in (0.05, 0.5))
    assert (loud - soft) * 4 == pytest.approx(np.log(100), abs=0.05)


def test_same_sound_at_another_rate_gives_nearly_the_same_features() -> None:
    plain = audio_tensor(tone(600, 1.0), RATE_HZ, SPEECH)
    for rate_hz in (16_000, 44_100, 48_000):
        other = audio_tensor(tone(600, 1.0, rate_hz), rate_hz, SPEECH)
        inner = np.s_[0, 5:-5, 4:28, 0]
        assert np.abs(np.exp(4 * plain[inner]) - np.exp(4 * other[inner])).max() < 0.02 * np.exp(4 * plain[inner]).max()


@given(st.integers(2, 5000), st.sampled_from([(8000, 16_000), (16_000, 8000), (44_100, 8000), (8000, 8000)]))
@settings(max_examples=60)
def test_resampling_changes_the_length_by_the_ratio(count: int, rates: tuple[int, int]) -> None:
    from_hz, to_hz = rates
    got = resample(np.ones(count, np.float32), from_hz, to_hz)
    assert len(got) == max(1, round(count * to_hz / from_hz)) and got.dtype == np.float32
    assert np.allclose(got, 1, atol=1e-4)


def test_resampling_keeps_what_fits_and_drops_what_does_not() -> None:
    assert np.abs(resample(tone(440, 1.0, 16_000), 16_000, 8000) - tone(440, 1.0)).max() < 1e-4
    assert np.abs(resample(tone(440, 1.0), 8000, 16_000) - tone(440, 1.0, 16_000)).max() < 1e-4
    assert np.abs(resample(tone(6000, 1.0, 16_000), 16_000, 8000)).max() < 1e-4, "beyond half the new rate"
    assert len(resample(np.zeros(0, np.float32), 16_000, 8000)) == 0


def test_loudest_stretch_is_taken_wherever_it_is() -> None:
    quiet = 0.01 * np.random.default_rng(SEED).uniform(-1, 1, 40_000).astype(np.float32)
    for start in (0, 7000, 32_000):
        sound = quiet.copy()
        sound[start : start + 8000] += tone(440, 1.0)
        got = loudest_window(sound, 8000)
        assert len(got) == 8000 and np.mean(got**2) > 0.99 * np.mean(sound[start : start + 8000] ** 2)


def test_short_sound_is_centred_in_silence() -> None:
    got = loudest_window(np.ones(3, np.float32), 8)
    assert got.tolist() == [0, 0, 1, 1, 1, 0, 0, 0] and got.dtype == np.float32
    assert loudest_window(np.ones(8, np.float32), 8).tolist() == [1] * 8


def test_no_data_is_an_error_and_kinds_go_their_own_ways() -> None:
    spec = ImageInput(width=16, height=16)
    assert np.array_equal(preprocess(noise(50, 60), None, spec), image_tensor(noise(50, 60), spec))
    sound = tone(440, 0.4, 16_000)
    assert np.array_equal(preprocess(sound, 16_000, SPEECH), audio_tensor(sound, 16_000, SPEECH))
    with pytest.raises(ValueError, match="no data"):
        preprocess(None, None, spec)


def test_picture_bytes_go_to_the_network_as_they_are_or_shifted() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    plain = to_model(values, TensorSpec(name="x", shape=[1, 16, 16, 1], dtype="uint8"))
    shifted = to_model(values, TensorSpec(name="x", shape=[1, 16, 16, 1], dtype="int8"))
    assert plain.dtype == np.uint8 and np.array_equal(plain, values)
    assert shifted.dtype == np.int8
    assert np.array_equal(shifted.astype(np.int64), values.astype(np.int64) - 128)
    real = to_model(values, TensorSpec(name="x", shape=[1, 16, 16, 1], dtype="float32"))
    assert real.dtype == np.float32 and np.array_equal(real, values.astype(np.float32))


def test_features_are_quantized_with_the_tensor_s_scale_and_cut_off_at_its_ends() -> None:
    values = np.array([-100.0, -1.0, 0.0, 0.26, 1.0, 100.0], np.float32)
    spec = TensorSpec(name="x", shape=[6], dtype="int8", scale=0.02, zero_point=3)
    assert to_model(values, spec).tolist() == [-128, -47, 3, 16, 53, 127]
    unsigned = TensorSpec(name="x", shape=[6], dtype="uint8", scale=0.02, zero_point=128)
    assert to_model(values, unsigned).tolist() == [0, 78, 128, 141, 178, 255]
    with pytest.raises(ValueError, match="scale and zero_point"):
        to_model(values, TensorSpec(name="x", shape=[6], dtype="int8"))


def test_tensors_lie_in_memory_without_gaps() -> None:
    values = image_tensor(noise(64, 64), ImageInput(width=16, height=16))
    for dtype in ("uint8", "int8", "float32"):
        spec = TensorSpec.model_validate({"name": "x", "shape": [1, 8, 16, 3], "dtype": dtype})
        tensor = to_model(values[:, ::2], spec)
        assert tensor.flags["C_CONTIGUOUS"]


def mlperf_tiny_features(samples: F32) -> F32:
    """Return MLPerf Tiny's keyword features, written anew from its description, with scipy's transform."""
    from scipy.fft import dct

    sound = samples / samples.max()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    frames = np.stack([sound[start : start + 480] * window for start in range(0, 16000 - 480 + 1, 320)])
    spectrum = np.abs(np.fft.rfft(frames, 512))
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), 42)
    bins = 1127 * np.log1p(np.linspace(0, 8000, 257) / 700)
    bank = np.zeros((257, 40))
    for band in range(40):
        low, middle, high = edges[band : band + 3]
        bank[:, band] = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    log_mel = np.log(spectrum @ bank + 1e-6)
    return np.asarray(dct(log_mel, type=2, axis=1)[:, :10] / np.sqrt(80), np.float32)


def test_mfcc_are_those_of_mlperf_tiny() -> None:
    sound = tone(440, 1.0, 16000) + np.random.default_rng(SEED).normal(0, 0.05, 16000).astype(np.float32)
    got = audio_tensor(sound.astype(np.float32), 16000, MLPERF_TINY)
    assert got.shape == audio_shape(MLPERF_TINY) == (1, 49, 10, 1)
    assert np.abs(got[0, :, :, 0] - mlperf_tiny_features(sound)).max() < 2e-3


def test_peak_level_makes_features_independent_of_loudness() -> None:
    quiet = tone(440, 1.0, 16000, amplitude=0.01)
    assert np.abs(audio_tensor(quiet, 16000, MLPERF_TINY) - audio_tensor(quiet * 50, 16000, MLPERF_TINY)).max() < 5e-3


def test_silence_with_peak_level_stays_finite() -> None:
    assert np.isfinite(audio_tensor(np.zeros(16000, np.float32), 16000, MLPERF_TINY)).all()


def test_waveform_from_the_start_is_followed_by_silence() -> None:
    spec = AudioInput(sample_rate_hz=RATE_HZ, window_s=1.0, features="waveform", place="start")
    sound = tone(300, 0.5)
    got = audio_tensor(sound, RATE_HZ, spec)
    assert got.shape == audio_shape(spec) == (1, RATE_HZ, 1, 1)
    assert np.array_equal(got[0, : len(sound), 0, 0], sound) and not got[0, len(sound) :].any()


def test_more_coefficients_than_bands_are_refused() -> None:
    with pytest.raises(ValueError, match="coefficients 41"):
        AudioInput(sample_rate_hz=RATE_HZ, window_s=1.0, features="mfcc", mel_bands=40, coefficients=41)


def test_bytes_with_mean_and_std_become_what_the_file_takes() -> None:
    picture = noise(6, 5)[None]
    mean, std = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]
    exact = (picture.astype(np.float32) - np.array(mean, np.float32)) / np.array(std, np.float32)
    first = TensorSpec(name="x", shape=[1, 3, 6, 5], dtype="float32", mean=mean, std=std, layout="channels_first")
    assert np.allclose(to_model(picture, first).view(np.float32), exact.transpose(0, 3, 1, 2), atol=1e-6)
    narrow = TensorSpec(name="x", shape=[1, 6, 5, 3], dtype="int8", scale=0.02, zero_point=-3, mean=mean, std=std)
    assert np.array_equal(to_model(picture, narrow), np.clip(np.rint(exact / np.float32(0.02)) - 3, -128, 127))


def test_axes_of_one_come_and_go_but_sizes_are_never_mixed_up() -> None:
    values = np.zeros((1, 49, 10, 1), np.float32)
    for shape in ([1, 49, 10], [1, 1, 49, 10], [1, 49, 10, 1]):
        assert to_model(values, TensorSpec(name="x", shape=shape, dtype="float32")).shape == tuple(shape)
    swapped = TensorSpec(name="x", shape=[1, 10, 49], dtype="float32")
    assert to_model(values, swapped).shape == (1, 49, 10, 1), "left for the runtime to refuse"


def test_blue_comes_first_where_a_model_wants_it() -> None:
    blue = np.zeros((32, 32, 3), np.uint8)
    blue[..., 0] = 200
    assert image_tensor(blue, ImageInput(width=16, height=16, color="bgr"))[0, 5, 5].tolist() == [200, 0, 0]
