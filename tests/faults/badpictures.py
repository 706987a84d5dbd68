"""Pictures that no line should send, each as bytes with a word that the reason for its deferral must hold."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

NOISE = np.random.default_rng(7).integers(0, 255, (64, 64, 3), np.uint8)


def _encoded(kind: str, image: "Image.Image", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


JPEG = _encoded("JPEG", Image.fromarray(NOISE), quality=90)
BAD_PICTURES: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "cut.jpg": (JPEG[: len(JPEG) * 2 // 3], "cut short"),
    "cut.png": (_encoded("PNG", Image.fromarray(NOISE))[:-40], "cut short"),
    "one_pixel.png": (_encoded("PNG", Image.new("RGB", (1, 1), (9, 9, 9))), "1×1"),
    "sixteen_bit.png": (_encoded("PNG", Image.fromarray(np.full((32, 32), 40_000, np.uint16))), "8 bits"),
    "cmyk.jpg": (_encoded("JPEG", Image.new("CMYK", (32, 32), (9, 99, 199, 0))), "CMYK"),
    "huge.png": (_png_header(20_000, 20_000), "pixels"),
    "huge.jpg": (JPEG.replace(struct.pack(">HH", 64, 64), struct.pack(">HH", 20_000, 20_000), 1), "pixels"),
    "random.jpg": (np.random.default_rng(8).bytes(5000), "not a picture"),
    "text.png": (b"this is a shopping list\n" * 20, "not a picture"),
}
"""Bytes, and a word that the reason must hold."""
