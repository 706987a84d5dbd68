"""Pictures: what is decoded, what is refused and with which words; every file is made here by an encoder."""

import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edge.errors import SourceError
from edge.imaging import MAX_PIXELS, decode, encode_png

SEED = 7
ROOT = Path(__file__).parents[2]
FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "BMP": "image/bmp", "WEBP": "image/webp", "TIFF": "image/tiff"}

BEST: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
PLAIN_MODES = {
    "PNG": ["1", "L", "LA", "P", "RGBA"],
    "JPEG": ["L"],
    "BMP": ["1", "L", "P"],
    "TIFF": ["L", "P", "RGBA"],
    "WEBP": ["RGBA"],
}
NO_PICTURES = [b"hello, this is no picture at all" * 10, bytes(500), b"%PDF-1.7\n" * 30, b"\xff\xd8", b"BM"]


def _picture(rows: int = 48, columns: int = 64) -> NDArray[np.uint8]:
    """Smooth colours, RGB: no two corners alike."""
    y, x = np.mgrid[0:rows, 0:columns]
    return np.stack([x * 255 // columns, y * 255 // rows, 255 - x * 255 // columns], axis=2).astype(np.uint8)


def encoded(kind: str, picture: Any = None, mode: str | None = None, **options: Any) -> bytes:
    """Return a file of one format with this picture, RGB or as Pillow's `mode` says."""
    stream = io.BytesIO()
    image = Image.fromarray(_picture() if picture is None else picture)
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def png_with(width: int, height: int, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """Return a PNG with any header at all."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_picture_of_each_format_is_decoded_to_its_own_pixels(kind: str) -> None:
    picture, media_type = decode(encoded(kind, **BEST.get(kind, {})))
    assert media_type == FORMATS[kind]
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    difference = np.abs(picture.astype(int) - _picture()[:, :, ::-1].astype(int)).max()
    assert difference <= (10 if kind == "JPEG" else 0)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind, modes in PLAIN_MODES.items() for mode in modes],
)
def test_gray_palette_and_transparency_become_colour(kind: str, mode: str) -> None:
    picture, _ = decode(encoded(kind, mode=mode))
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    shown = np.asarray(Image.fromarray(_picture()).convert(mode).convert("RGB"))[:, :, ::-1]
    assert np.abs(picture.astype(int) - shown.astype(int)).mean() < 6


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 1)])
def test_tiny_picture_is_decoded_and_left_to_the_gate(size: tuple[int, int]) -> None:
    rows, columns = size
    for kind in FORMATS:
        assert decode(encoded(kind, _picture(rows, columns)))[0].shape == (rows, columns, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_viewers_do(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(kind, exif=exif, **BEST.get(kind, {}))
    transposed: dict[int, Callable[[Any], Any]] = {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
        8: lambda p: np.rot90(p, 1),
    }
    expected = transposed[orientation](_picture()[:, :, ::-1])
    picture, _ = decode(raw)
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected.astype(int)).max() <= 10


def test_empty_file_is_refused() -> None:
    _refused(b"", "empty")


@pytest.mark.parametrize(
    "raw", [b"hello, this is no picture at all" * 10, bytes(500), b"%PDF-1.7\n" * 30, b"\xff\xd8", b"BM"]
)
def test_what_is_no_picture_is_refused(raw: bytes) -> None:
    _refused(raw, "not a picture|cut short")


def test_gif_is_refused_with_the_formats_that_are_read() -> None:
    _refused(encoded("GIF"), "JPEG, PNG, BMP, WEBP, TIFF")


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_picture_cut_short_anywhere_is_refused(kind: str) -> None:
    noise = np.random.default_rng(SEED).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    raw = encoded(kind, noise)
    rng = np.random.default_rng(SEED)
    for cut in sorted({1, 2, 10, len(raw) - 1, *rng.integers(3, len(raw) - 1, 60).tolist()}):
        with pytest.raises(SourceError) as caught:
            decode(raw[:cut])
        assert str(caught.value), f"seed {SEED}, cut at {cut} of {len(raw)}"


def test_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    raw = encoded("JPEG", progressive=True)
    scans = [at for at in range(len(raw) - 1) if raw[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    assert decode(raw)[0].shape == (48, 64, 3)
    for at in (scans[1], scans[-1], scans[-1] + 20):
        _refused(raw[:at], "cut short")


def test_end_of_a_thumbnail_does_not_pass_for_the_end_of_the_picture() -> None:
    whole, thumbnail = encoded("JPEG"), encoded("JPEG", _picture(8, 8))
    raw = whole[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + whole[2:]
    assert raw.count(b"\xff\xd9") == 2
    decode(raw)
    _refused(raw[:-30], "cut short")


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    assert decode(encoded("JPEG") + bytes(500))[0].shape == (48, 64, 3)


@pytest.mark.parametrize("damage_bytes", [1, 16, 512])
def test_jpeg_damaged_in_its_middle_is_refused_where_its_code_shows_it(damage_bytes: int) -> None:
    noise = np.random.default_rng(SEED).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    raw = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 1))[1].tobytes()
    rng = np.random.default_rng(SEED)
    scan = raw.rfind(b"\xff\xda") + 14
    refused = 0
    for _ in range(40):
        damaged = bytearray(raw)
        at = int(rng.integers(scan, len(raw) - damage_bytes - 2))
        damaged[at : at + damage_bytes] = rng.bytes(damage_bytes)
        try:
            decode(bytes(damaged))
        except SourceError as error:
            assert "damaged JPEG" in str(error) or "cut short" in str(error)
            refused += 1
    assert refused >= 16  # OpenCV's own decoder says nothing in all of them


@pytest.mark.parametrize("keywords", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": "4:1:1"}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_gives_the_same_pixels_as_opencv(keywords: dict[str, Any], mode: str) -> None:
    raw = encoded("JPEG", mode=mode, **keywords)
    opencvs = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    assert opencvs is not None and np.array_equal(decode(raw)[0], opencvs)


def test_png_for_keeping_gives_the_same_pixels_again() -> None:
    picture = np.random.default_rng(SEED).integers(0, 256, (30, 41, 3)).astype(np.uint8)
    again, media_type = decode(encode_png(picture))
    assert media_type == "image/png" and np.array_equal(again, picture)


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_png_of_16_bits_is_refused(colour: int) -> None:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = (b"\0" + bytes(8 * channels * 2)) * 8
    _refused(png_with(8, 8, 16, colour, rows), "8 bits per channel, got 16")


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_of_more_than_8_bits_is_refused(dtype: Any, channels: int) -> None:
    picture = np.zeros((8, 8, channels) if channels > 1 else (8, 8), dtype)
    ok, raw = cv2.imencode(".tiff", picture)
    assert ok
    _refused(raw.tobytes(), "8 bits per channel, got (16|32)|not a picture")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_print_colours_are_refused(kind: str) -> None:
    _refused(encoded(kind, mode="CMYK"), "gray or RGB colours, got CMYK")


@pytest.mark.parametrize("side", [20_000, 65_000, 2**31 - 1])
def test_header_that_claims_more_pixels_than_any_camera_is_refused_without_memory(side: int) -> None:
    for raw in (png_with(side, side), _bmp_header(side, side)):
        started = time.perf_counter()
        _refused(raw, "at most|not a picture")
        assert time.perf_counter() - started < 0.5


def test_size_limit_is_exact() -> None:
    _refused(png_with(10_000, MAX_PIXELS // 10_000 + 1), "at most 50,000,000 pixels, got 10000×5001")
    _refused(png_with(10_000, MAX_PIXELS // 10_000), "damaged PNG")


def test_decoder_has_the_same_limit_as_the_header_check() -> None:
    code = """
import sys, edge.preprocess, cv2, numpy as np
cv2.imdecode(np.frombuffer(sys.stdin.buffer.read(), np.uint8), cv2.IMREAD_COLOR)
"""
    raw = png_with(10_000, MAX_PIXELS // 10_000 + 1)
    result = subprocess.run([sys.executable, "-c", code], input=raw, capture_output=True, cwd=ROOT)
    assert b"CV_IO_MAX_IMAGE_PIXELS" in result.stderr


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG"])
def test_file_with_several_pictures_is_refused(kind: str) -> None:
    pages = [Image.fromarray(_picture()), Image.fromarray(_picture()[::-1].copy())]
    stream = io.BytesIO()
    pages[0].save(stream, kind, save_all=True, append_images=pages[1:])
    _refused(stream.getvalue(), "expected one picture")


@given(st.data())
@settings(max_examples=150)
def test_damaged_bytes_give_a_picture_or_words_and_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(_ENCODED[data.draw(st.sampled_from(sorted(FORMATS)))])
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture, _ = decode(bytes(raw))
    except SourceError as error:
        assert str(error) and error.retry is False
    else:
        assert picture.ndim == 3 and picture.dtype == np.uint8 and picture.size <= 3 * MAX_PIXELS


def test_decoding_costs_little_more_than_the_decoder_alone() -> None:
    noise = np.random.default_rng(SEED).integers(0, 256, (480, 640, 3)).astype(np.uint8)
    raw = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 1), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()

    def bare_decode() -> object:
        return cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)

    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(60):
        for name, run in (
            ("bare", lambda: cv2.imdecode(np.frombuffer(raw, np.uint8), 1)),
            ("ours", lambda: decode(raw)),
        ):
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    bare, ours = (float(np.median(times[name])) * 1000 for name in ("bare", "ours"))
    print(f"640×480 q90: bare {bare:.2f} ms, ours {ours:.2f} ms, ratio {ours / bare:.3f}")
    assert ours / bare < 1.5  # 1.06 alone on the machine


def _refused(raw: bytes, words: str) -> None:
    with pytest.raises(SourceError, match=words) as caught:
        decode(raw)
    assert caught.value.retry is False


def _bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info + bytes(100)


_ENCODED = {kind: encoded(kind) for kind in FORMATS}
