"""From a picture or sound to the tensor that the network takes: pure, and the same code in training and on devices.

Rules:
- Pictures stay raw bytes (uint8); what a network needs beyond that is folded into the network.
- Shrinking averages over whole pixels first, so that fine marks are not lost to aliasing, then interpolates.
- Sound is scaled by nothing here: level is information, and the gate judges it.
"""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import AudioInput, ImageInput, TensorSpec

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_LOG_FLOOR = 1e-6
_LOG_SHIFT = 6.0
_LOG_SCALE = 4.0


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
        (1, spec.height, spec.width, 3 or 1) uint8, RGB or gray.
    """
    small = resize(picture, spec.width, spec.height, keep_aspect=spec.resize == "letterbox")
    if spec.color == "gray":
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)[None, :, :, None]
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
    """Return log-mel features of a sound, about −1…1.

    Args:
        samples: (n,) float32 in −1…1, mono.
        sample_rate_hz: rate of `samples`.
        spec: the bundle's input.

    Returns:
        (1, frames, spec.mel_bands, 1) float32.
    """
    sound = resample(samples, sample_rate_hz, spec.sample_rate_hz)
    sound = loudest_window(sound, round(spec.window_s * spec.sample_rate_hz))
    frame, hop = _frame_and_hop(spec)
    count = 1 + (len(sound) - frame) // hop
    frames = np.lib.stride_tricks.sliding_window_view(sound, frame)[::hop][:count]
    spectrum = np.abs(np.fft.rfft(frames * _hann(frame), axis=1)).astype(np.float32)
    mel = (spectrum * spectrum) @ _mel_bank(spec).T
    features = (np.log(mel + np.float32(_LOG_FLOOR)) + np.float32(_LOG_SHIFT)) / np.float32(_LOG_SCALE)
    return features.astype(np.float32)[None, :, :, None]


def audio_shape(spec: AudioInput) -> tuple[int, int, int, int]:
    """Return the shape of `audio_tensor`'s result for this spec."""
    frame, hop = _frame_and_hop(spec)
    return 1, 1 + (round(spec.window_s * spec.sample_rate_hz) - frame) // hop, spec.mel_bands, 1


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


def to_model(values: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    """Return preprocessed values in the dtype that one format of the network takes.

    Raw picture bytes pass as they are to a uint8 input and shifted by 128 to an int8 input; float features are
    quantized with the tensor's scale and zero point unless the network takes float32.
    """
    if spec.dtype == "float32":
        return np.ascontiguousarray(values, np.float32)
    if values.dtype == np.uint8:
        raw = values.view(np.uint8)
        return np.ascontiguousarray(raw if spec.dtype == "uint8" else (raw ^ np.uint8(0x80)).view(np.int8))
    if spec.scale is None or spec.zero_point is None:
        raise ValueError(f"input {spec.name!r}: float features need scale and zero_point to become {spec.dtype}")
    limits = np.iinfo(spec.dtype)
    steps = np.rint(values.astype(np.float32) / np.float32(spec.scale)) + spec.zero_point
    quantized: NDArray[np.generic] = np.clip(steps, limits.min, limits.max).astype(spec.dtype)
    return quantized


def _frame_and_hop(spec: AudioInput) -> tuple[int, int]:
    return round(spec.frame_ms * spec.sample_rate_hz / 1000), round(spec.hop_ms * spec.sample_rate_hz / 1000)


@lru_cache(maxsize=8)
def _hann(length: int) -> F32:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


@lru_cache(maxsize=8)
def _mel_bank(spec_key: "AudioInput") -> F32:
    """Triangular filters, (mel_bands, frame // 2 + 1), on the HTK mel scale."""
    frame, _ = _frame_and_hop(spec_key)
    bins = np.fft.rfftfreq(frame, 1 / spec_key.sample_rate_hz)

    def mel(hz: float) -> float:
        return 2595.0 * float(np.log10(1 + hz / 700.0))

    edges_mel = np.linspace(mel(spec_key.low_hz), mel(spec_key.high_hz), spec_key.mel_bands + 2)
    edges = 700.0 * (10 ** (edges_mel / 2595.0) - 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    return np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)
