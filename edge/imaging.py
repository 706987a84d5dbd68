"""From the bytes of an encoded picture to its pixels, refusing what cannot be judged as it is.

Rules:
- The header is read first, and its size checked, before memory for any pixel is taken.
- Nothing is guessed: a picture that is cut short, or has more than 8 bits or other colours than gray and RGB, is
  refused with its reason; decoders would fill up, scale down or convert it and say nothing.
- A JPEG whose data is damaged in the middle is refused where its Huffman code shows it (the format has no checksum:
  of random damage to real pictures about seven in ten cases; of the rest nobody can tell).
- The orientation that EXIF gives is applied, as every viewer does: the network sees what a person sees.
- Transparency is dropped; palettes and gray become BGR. A file with several pictures (pages, frames) is refused.
"""

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from edge.errors import SourceError

U8 = NDArray[np.uint8]

MAX_PIXELS = 50_000_000
"""About the largest single-chip camera; 150 MB as BGR."""
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
}

_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "YCbCr"}
_MORE_BITS = {"I;16", "I;16B", "I;16L", "I;16N", "I", "F"}
_PNG_DEPTH_AT = 24
_FAST_PNG = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
"""Of a camera's picture, 60 % of the time that the defaults take, and no larger."""
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_SCAN, _JPEG_END = 0xDA, b"\xff\xd9"
_EXIF_ORIENTATION = 0x0112
_TURNS: dict[int, Callable[[U8], U8]] = {
    2: np.fliplr,
    3: lambda picture: np.rot90(picture, 2),
    4: np.flipud,
    5: lambda picture: picture.transpose(1, 0, 2),
    6: lambda picture: np.rot90(picture, -1),
    7: lambda picture: np.rot90(picture, 2).transpose(1, 0, 2),
    8: np.rot90,
}
_TIFF_BITS, _TIFF_PIECES = 258, ((273, 279), (324, 325))
"""Tags: bits per sample; offsets and sizes of strips and of tiles."""


def decode(raw: bytes) -> tuple[U8, str]:
    """Return a picture's pixels, (height, width, 3) uint8 in BGR order, and its media type.

    Args:
        raw: a whole file: JPEG, PNG, BMP, WebP or TIFF with up to 8 bits per channel.

    Raises:
        SourceError: the bytes are not such a picture, or not all of it; the message is for people.
    """
    if not raw:
        raise _refused("the file is empty")
    width, height, kind, orientation = _header(raw)
    picture = _jpeg(raw, orientation) if MEDIA_TYPES[kind] == "image/jpeg" else _other(raw, kind)
    rows, columns = picture.shape[:2]
    if (columns, rows) not in ((width, height), (height, width)):
        raise _refused(f"damaged {kind}: its header says {width}×{height} pixels, it holds {columns}×{rows}")
    return np.asarray(picture, np.uint8), MEDIA_TYPES[kind]


def encode_png(picture: U8) -> bytes:
    """Return a picture, (height, width, 3) uint8 in BGR order, as a PNG: without loss, and fast rather than small."""
    encoded, raw = cv2.imencode(".png", picture, _FAST_PNG)
    return raw.tobytes() if encoded else b""


def _header(raw: bytes) -> tuple[int, int, str, int]:
    """Return (width, height, format, EXIF orientation) of a picture that may be decoded."""
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as header:
            kind = str(header.format)
            _check_size(*header.size)
            _check_colours(header, raw)
            _check_frames(header, kind)
            _check_complete(header, kind, raw)
            return *header.size, kind, _orientation(header)
    except SourceError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _refused(f"expected at most {MAX_PIXELS:,} pixels, the header claims far more") from error
    except Exception as error:  # hostile headers raise whatever the parser trips over
        formats = ", ".join(_FORMATS)
        raise _refused(f"not a picture that can be read (expected {formats})") from error


def _orientation(header: Image.Image) -> int:
    return int(header.getexif().get(_EXIF_ORIENTATION, 1)) if "exif" in header.info else 1


def _jpeg(raw: bytes, orientation: int) -> U8:
    """Decode with libjpeg's warnings as errors; OpenCV uses the same decoder and keeps them to itself."""
    try:
        picture = simplejpeg.decode_jpeg(raw, "BGR", strict=True)
    except (ValueError, MemoryError) as error:
        raise _refused(f"damaged JPEG: {error}") from error
    turn = _TURNS.get(orientation)
    return np.ascontiguousarray(turn(picture)) if turn else picture


def _other(raw: bytes, kind: str) -> Any:
    try:
        picture = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as error:
        raise _refused(f"damaged {kind}: the decoder failed") from error
    if picture is None:
        raise _refused(f"damaged {kind}: the decoder gives no picture")
    return picture


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise _refused(f"the picture is {width}×{height} pixels")
    if width * height > MAX_PIXELS:
        raise _refused(f"expected at most {MAX_PIXELS:,} pixels, got {width}×{height}")


def _check_colours(header: Image.Image, raw: bytes) -> None:
    bits = _bits_per_channel(header, raw)
    if bits > 8:
        raise _refused(f"expected 8 bits per channel, got {bits}")
    if header.mode not in _MODES:
        raise _refused(f"expected gray or RGB colours, got {header.mode}")


def _bits_per_channel(header: Image.Image, raw: bytes) -> int:
    if header.format == "PNG":
        return raw[_PNG_DEPTH_AT]
    if header.format == "TIFF":
        tags: Any = header.tag_v2  # type: ignore[attr-defined]
        return int(max(tags.get(_TIFF_BITS, (1,))))
    return 16 if header.mode in _MORE_BITS else 8


def _check_frames(header: Image.Image, kind: str) -> None:
    frames = getattr(header, "n_frames", 1)
    if frames > 1 and kind != "MPO":  # phones hide gain maps and depth behind the picture as MPO
        raise _refused(f"expected one picture, the {kind} holds {frames}")


def _check_complete(header: Image.Image, kind: str, raw: bytes) -> None:
    if not _COMPLETE["JPEG" if kind == "MPO" else kind](raw, header):
        raise _refused(f"the {kind} is cut short: {len(raw)} bytes are there, its end is missing")


def _jpeg_complete(raw: bytes, _header: Image.Image) -> bool:
    """Whether an end follows the first scan of the picture itself (thumbnails within segments have their own)."""
    at = 2
    while at + 4 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker == _JPEG_SCAN:
            return raw.rfind(_JPEG_END, at) > 0
        filler = marker == 0xFF
        at += 1 if filler else 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return False


def _png_complete(raw: bytes, _header: Image.Image) -> bool:
    return raw.rfind(_PNG_END) > 0


def _bmp_complete(raw: bytes, header: Image.Image) -> bool:
    pixels_at = int.from_bytes(raw[10:14], "little")
    bits, compression = int.from_bytes(raw[28:30], "little"), int.from_bytes(raw[30:34], "little")
    if compression in (1, 2):  # run lengths end with a marker of their own
        return raw.rstrip(b"\0").endswith(b"\x01") or raw.endswith(b"\x00\x01")
    row_bytes = (header.width * bits + 31) // 32 * 4
    return len(raw) >= pixels_at + row_bytes * header.height


def _webp_complete(raw: bytes, _header: Image.Image) -> bool:
    return len(raw) >= 8 + int.from_bytes(raw[4:8], "little")


def _tiff_complete(raw: bytes, header: Image.Image) -> bool:
    tags: Any = header.tag_v2  # type: ignore[attr-defined]
    pieces = [
        offset + size
        for offsets, sizes in _TIFF_PIECES
        for offset, size in zip(tags.get(offsets, ()), tags.get(sizes, ()), strict=False)
    ]
    return bool(pieces) and max(pieces) <= len(raw)


_COMPLETE: dict[str, Callable[[bytes, Image.Image], bool]] = {
    "JPEG": _jpeg_complete,
    "PNG": _png_complete,
    "BMP": _bmp_complete,
    "WEBP": _webp_complete,
    "TIFF": _tiff_complete,
}


def _refused(why: str) -> SourceError:
    return SourceError(why, retry=False)
