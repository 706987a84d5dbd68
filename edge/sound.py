"""From the bytes of a WAV file to samples, refusing what cannot be judged as it is.

Rules:
- Whole chunks only: a header or data that is cut short is refused, never filled up.
- Several channels become one by their mean; integers are scaled by their full range, so 1.0 is full scale.
- Every bound is checked before samples are converted.

Format: Multimedia Programming Interface and Data Specifications 1.0 (RIFF WAVE), WAVEFORMATEXTENSIBLE.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError

F32 = NDArray[np.float32]
_Reader = Callable[[memoryview], F32]

MAX_DURATION_S = 600
"""One window is one decision: longer sound belongs to a source that cuts it."""
MAX_VALUES = 16_000 * MAX_DURATION_S
"""Of all channels together: ten minutes at the rate of speech, 38 MB as float32."""
MEDIA_TYPE = "audio/wav"

_RATES_HZ = (1_000, 768_000)
_MAX_CHANNELS = 64
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT_AT = 24
_TAIL_OF_GUID = bytes.fromhex("000000001000800000aa00389b71")
"""Last 14 bytes of the identities of the plain formats within an extensible header."""


@dataclass(frozen=True)
class _Format:
    code: int
    channels: int
    rate_hz: int
    frame_bytes: int
    bits: int


def decode_wav(raw: bytes) -> tuple[F32, int]:
    """Return the sound of a WAV file: samples (n,) float32 in −1…1, mono, and the sample rate in Hz.

    Args:
        raw: a whole file: PCM of 8, 16, 24 or 32 bits, or float of 32 or 64 bits.

    Raises:
        SourceError: the bytes are not such a file, or not all of it; the message is for people.
    """
    if not raw:
        raise _refused("the file is empty")
    if len(raw) < 12 or raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise _refused("not a WAV file (it does not begin with RIFF … WAVE)")
    form, data = _chunks(memoryview(raw))
    if not len(data):
        raise _refused("the WAV file holds no sound")
    if len(data) % form.frame_bytes:
        raise _refused(f"the WAV file is cut short: {len(data)} bytes are not whole frames of {form.frame_bytes}")
    duration_s = len(data) / form.frame_bytes / form.rate_hz
    if duration_s > MAX_DURATION_S:
        raise _refused(f"expected at most {MAX_DURATION_S} s of sound, got {duration_s:.0f} s")
    values = len(data) * 8 // form.bits
    if values > MAX_VALUES:
        raise _refused(f"expected at most {MAX_VALUES:,} samples, got {values:,}")
    samples = _samples(data, form).reshape(-1, form.channels)
    mono = samples[:, 0] if form.channels == 1 else samples.mean(axis=1)
    if not np.isfinite(mono).all():
        raise _refused("the WAV file holds samples that are not finite numbers")
    return np.ascontiguousarray(np.clip(mono, -1.0, 1.0), np.float32), form.rate_hz


def encode_wav(samples: F32, rate_hz: int) -> bytes:
    """Return sound as a WAV file of 16 bits: without loss if it came from samples of 16 bits.

    Args:
        samples: (n,) float32 in −1…1; beyond is clipped.
        rate_hz: sample rate.
    """
    data = np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        36 + len(data),
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate_hz,
        rate_hz * 2,
        2,
        16,
        b"data",
        len(data),
    )
    return header + data


def _chunks(view: memoryview) -> tuple[_Format, memoryview]:
    at, form = 12, None
    while at + 8 <= len(view):
        name, size = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 8], "little")
        body = view[at + 8 : at + 8 + size]
        if name in (b"fmt ", b"data") and len(body) < size:
            raise _refused(f"the WAV file is cut short: {size} bytes were announced, {len(body)} are there")
        if name == b"fmt ":
            form = _format(bytes(body))
        elif name == b"data":
            if form is None:
                raise _refused("damaged WAV file: its samples come before their format")
            return form, body
        at += 8 + size + size % 2
    raise _refused("the WAV file is cut short: it has no samples")


def _format(body: bytes) -> _Format:
    if len(body) < 16:
        raise _refused("damaged WAV file: its format is too short")
    code, channels, rate_hz, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 40 and body[_SUBFORMAT_AT + 2 : _SUBFORMAT_AT + 16] == _TAIL_OF_GUID:
        (code,) = struct.unpack_from("<H", body, _SUBFORMAT_AT)
    if (code, bits) not in _READERS:
        raise _refused(f"expected PCM of 8 to 32 bits or float, got WAV format {code} of {bits} bits")
    low, high = _RATES_HZ
    if not low <= rate_hz <= high:
        raise _refused(f"expected a sample rate of {low} to {high} Hz, got {rate_hz}")
    if not 1 <= channels <= _MAX_CHANNELS or frame_bytes != channels * bits // 8:
        raise _refused(f"damaged WAV file: {channels} channels of {bits} bits in frames of {frame_bytes} bytes")
    return _Format(code, channels, rate_hz, frame_bytes, bits)


def _samples(data: memoryview, form: _Format) -> F32:
    return _READERS[form.code, form.bits](data)


def _integer(dtype: str, full_scale: float) -> _Reader:
    def read(data: memoryview) -> F32:
        return (np.frombuffer(data, dtype) * np.float32(1 / full_scale)).astype(np.float32)

    return read


def _floating(dtype: str) -> _Reader:
    return lambda data: np.frombuffer(data, dtype).astype(np.float32)


def _unsigned_8(data: memoryview) -> F32:
    return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / np.float32(128)


def _packed_24(data: memoryview) -> F32:
    triples = np.frombuffer(data, np.uint8).reshape(-1, 3)
    words = np.zeros((len(triples), 4), np.uint8)
    words[:, 1:] = triples  # in the upper bytes, so that the sign is where it belongs
    return words.view("<i4")[:, 0] * np.float32(2.0**-31)


def _refused(why: str) -> SourceError:
    return SourceError(why, retry=False)


_READERS: dict[tuple[int, int], _Reader] = {
    (_PCM, 8): _unsigned_8,
    (_PCM, 16): _integer("<i2", 2.0**15),
    (_PCM, 24): _packed_24,
    (_PCM, 32): _integer("<i4", 2.0**31),
    (_FLOAT, 32): _floating("<f4"),
    (_FLOAT, 64): _floating("<f8"),
}
