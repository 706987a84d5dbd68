"""From a picture or sound to the tensor that the network takes: pure, and the same code in training and on devices.

Rules:
- Pictures stay raw bytes (uint8); what a network needs beyond that is folded into the network.
- Shrinking averages over whole pixels first, so that fine marks are not lost to aliasing, then interpolates.
- Sound is scaled by nothing here: level is information, and the gate judges it.
"""

from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import AudioInput, ImageInput, TensorSpec

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


def preprocess(data: NDArray[np.generic] | None, sample_rate_hz: int | None, spec: ImageInput | AudioInput) -> U8 | F32:
    """Return the values that the bundle's network takes for a picture or a sound, before `to_model`."""
    if data is None:
        raise ValueError("there is no data to preprocess")
    if isinstance(spec, ImageInput):
        return image_tensor(data.view(np.uint8), spec)
    return audio_tensor(data.view(np.float32), sample_rate_hz or spec.sample_rate_hz, spec)


def image_tensor(picture: U8, spec: ImageInput) -> U8:
    """Return the network's input for a picture.

    Args:
        picture: (height, width, 3) uint8, BGR.
        spec: the bundle's input.

    Returns:
        (1, spec.height, spec.width, 3 or 1) uint8, RGB, BGR or gray.
    """
    small = resize(picture, spec.width, spec.height, keep_aspect=spec.resize == "letterbox")
    if spec.color == "gray":
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)[None, :, :, None]
    if spec.color == "bgr":
        return np.asarray(small, np.uint8)[None]
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB), np.uint8)[None]


def resize(picture: U8, width: int, height: int, *, keep_aspect: bool = False) -> U8:
    """Return the picture at the given size in pixels; with `keep_aspect`, centred on black."""
    rows, columns = picture.shape[:2]
    if (columns, rows) == (width, height):
        return picture
    if not keep_aspect:
        return _shrink_then_interpolate(picture, width, height)
    scale = min(width / columns, height / rows)
    inner_w, inner_h = max(1, round(columns * scale)), max(1, round(rows * scale))
    canvas = np.zeros((height, width, *picture.shape[2:]), np.uint8)
    top, left = (height - inner_h) // 2, (width - inner_w) // 2
    canvas[top : top + inner_h, left : left + inner_w] = _shrink_then_interpolate(picture, inner_w, inner_h)
    return canvas


def _shrink_then_interpolate(picture: U8, width: int, height: int) -> U8:
    rows, columns = picture.shape[:2]
    across, down = columns // width, rows // height
    if across > 1 or down > 1:
        # Whole pixels where the size divides evenly, which is much faster; nothing is cut off where it does not.
        size = (columns // max(across, 1), rows // max(down, 1))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def audio_tensor(samples: F32, sample_rate_hz: int, spec: AudioInput) -> F32:
    """Return the features of a sound that the spec asks for; log-mel ones are about −1…1.

    Args:
        samples: (n,) float32 in −1…1, mono.
        sample_rate_hz: rate of `samples`.
        spec: the bundle's input.

    Returns:
        float32 of the shape `audio_shape(spec)`.
    """
    sound = resample(samples, sample_rate_hz, spec.sample_rate_hz)
    length = round(spec.window_s * spec.sample_rate_hz)
    sound = loudest_window(sound, length) if spec.place == "loudest" else first_window(sound, length)
    if spec.level == "peak":
        sound = _to_full_scale(sound)
    if spec.features == "waveform":
        return np.asarray(sound, np.float32)[None, :, None, None]
    log_mel = np.log(_mel(sound, spec) + np.float32(spec.log_floor))
    if spec.features == "mfcc":
        return np.asarray(log_mel @ _dct(spec.mel_bands, spec.coefficients), np.float32)[None, :, :, None]
    features = (log_mel + np.float32(spec.shift)) / np.float32(spec.scale)
    return np.asarray(features, np.float32)[None, :, :, None]


def audio_shape(spec: AudioInput) -> tuple[int, int, int, int]:
    """Return the shape of `audio_tensor`'s result for this spec."""
    frame, hop = _frame_and_hop(spec)
    length = round(spec.window_s * spec.sample_rate_hz)
    if spec.features == "waveform":
        return 1, length, 1, 1
    return 1, 1 + (length - frame) // hop, spec.coefficients if spec.features == "mfcc" else spec.mel_bands, 1


def resample(samples: F32, from_hz: int, to_hz: int) -> F32:
    """Return the sound at another sample rate, band-limited (by its Fourier transform)."""
    if from_hz == to_hz or not len(samples):
        return samples
    length = max(1, round(len(samples) * to_hz / from_hz))
    spectrum = np.fft.rfft(samples)
    keep = length // 2 + 1
    fitted = np.zeros(keep, spectrum.dtype)
    shared = min(keep, len(spectrum))
    fitted[:shared] = spectrum[:shared]
    return (np.fft.irfft(fitted, length) * (length / len(samples))).astype(np.float32)


def loudest_window(samples: F32, length: int) -> F32:
    """Return `length` samples: the stretch with the most energy, or the whole sound centred in silence."""
    if len(samples) <= length:
        before = (length - len(samples)) // 2
        return np.pad(samples, (before, length - len(samples) - before)).astype(np.float32)
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return samples[start : start + length]


def first_window(samples: F32, length: int) -> F32:
    """Return the first `length` samples; a shorter sound is followed by silence."""
    return np.pad(samples[:length], (0, max(0, length - len(samples)))).astype(np.float32)


def to_model(values: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    """Return preprocessed values (1, height, width, channels) in the dtype and layout that one format takes.

    Raw picture bytes pass as they are to a uint8 input and shifted by 128 to an int8 input, unless the spec gives
    mean and std; float features are quantized with the tensor's scale and zero point unless the network takes float32.
    Axes of length 1 come and go as the file's shape has them.
    """
    scaled = spec.mean is not None and values.dtype == np.uint8
    numbers = _from_table(values.view(np.uint8), spec) if scaled else _numbers(values, spec)
    if spec.layout == "channels_first":
        numbers = np.ascontiguousarray(numbers.transpose(0, 3, 1, 2))
    shape = tuple(spec.shape)
    if numbers.shape != shape and [n for n in numbers.shape if n != 1] == [n for n in shape if n != 1]:
        numbers = numbers.reshape(shape)
    return numbers


def _numbers(values: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    if spec.dtype == "float32":
        return np.ascontiguousarray(values, np.float32)
    if values.dtype == np.uint8:
        raw = values.view(np.uint8)
        return np.ascontiguousarray(raw if spec.dtype == "uint8" else (raw ^ np.uint8(0x80)).view(np.int8))
    if spec.scale is None or spec.zero_point is None:
        raise ValueError(f"input {spec.name!r}: float features need scale and zero_point to become {spec.dtype}")
    return _quantized(values.astype(np.float32), spec.dtype, spec.scale, spec.zero_point)


def _quantized(values: F32, dtype: str, scale: float, zero_point: int) -> NDArray[np.generic]:
    limits = np.iinfo(dtype)
    steps = np.rint(values / np.float32(scale)) + zero_point
    quantized: NDArray[np.generic] = np.clip(steps, limits.min, limits.max).astype(dtype)
    return quantized


def _from_table(picture: U8, spec: TensorSpec) -> NDArray[np.generic]:
    """Look every byte up: there are only 256 of them, whatever the arithmetic."""
    mean, std = spec.mean or [0.0], spec.std or [1.0]
    table = _table(tuple(mean), tuple(std), picture.shape[3], spec.dtype, spec.scale, spec.zero_point)
    return np.asarray(cv2.LUT(picture[0], cast(NDArray[Any], table))).reshape(picture.shape)


@lru_cache(maxsize=8)
def _table(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    channels: int,
    dtype: str,
    scale: float | None,
    zero_point: int | None,
) -> NDArray[np.generic]:
    """(256, 1, channels): what each byte becomes."""
    offset, divisor = (np.broadcast_to(np.asarray(numbers, np.float32), (channels,)) for numbers in (mean, std))
    real = ((np.arange(256, dtype=np.float32)[:, None, None] - offset) / divisor).astype(np.float32)
    if dtype == "float32":
        return real
    if scale is None or zero_point is None:
        raise ValueError(f"mean and std need scale and zero_point to become {dtype}")
    return _quantized(real, dtype, scale, zero_point)


def _to_full_scale(sound: F32) -> F32:
    highest = float(sound.max(initial=0.0))
    return np.asarray(sound / np.float32(highest), np.float32) if highest > 0 else sound


def _mel(sound: F32, spec: AudioInput) -> F32:
    """Return the energy of each mel band, (frames, mel_bands)."""
    frame, hop = _frame_and_hop(spec)
    count = 1 + (len(sound) - frame) // hop
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop][:count]
    spectrum = np.abs(np.fft.rfft(frames * _hann(frame), spec.fft_size or frame, axis=1)).astype(np.float32)
    if spec.spectrum == "power":
        spectrum = spectrum * spectrum
    return np.asarray(spectrum @ _mel_bank(spec).T, np.float32)


def _frame_and_hop(spec: AudioInput) -> tuple[int, int]:
    return round(spec.frame_ms * spec.sample_rate_hz / 1000), round(spec.hop_ms * spec.sample_rate_hz / 1000)


@lru_cache(maxsize=8)
def _hann(length: int) -> F32:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@lru_cache(maxsize=8)
def _dct(bands: int, coefficients: int) -> F32:
    """(bands, coefficients): the DCT-II without normalisation, divided by sqrt(2 × bands)."""
    steps = np.pi * (np.arange(bands)[:, None] + 0.5) * np.arange(coefficients) / bands
    return np.asarray(2 * np.cos(steps) / np.sqrt(2 * bands), np.float32)


@lru_cache(maxsize=8)
def _mel_bank(spec_key: "AudioInput") -> F32:
    """Triangular filters, (mel_bands, transform // 2 + 1), on the HTK mel scale."""
    frame, _ = _frame_and_hop(spec_key)
    bins = np.fft.rfftfreq(spec_key.fft_size or frame, 1 / spec_key.sample_rate_hz)
    low, high = (2595.0 * float(np.log10(1 + hz / 700.0)) for hz in (spec_key.low_hz, spec_key.high_hz))
    edges = np.linspace(low, high, spec_key.mel_bands + 2)
    if spec_key.filters == "mel":
        bins = 2595.0 * np.log10(1 + bins / 700.0)
    else:
        edges = 700.0 * (10 ** (edges / 2595.0) - 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)
