"""Sends a sparse file as gzip without spending time on its holes.

Rules:
- A gzip file may have several members (RFC 1952, 2.2): holes are members that were compressed once, what is between
  them is stored as it is, because it is compressed already.
- The file is read in pieces; nothing of it is held.
"""

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

HOLE_BYTES = 16 * 2**20
READ_BYTES = 2**20


def gzipped(path: Path) -> Iterator[bytes]:
    """Give a gzip file whose content is the file's, a piece at a time."""
    with path.open("rb") as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        for start, end in _data(file.fileno(), size):
            yield from _hole(start - place)
            yield from _stored(file.fileno(), start, end)
            place = end
        yield from _hole(size - place)


def _data(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Give the stretches of a file that are not holes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole to the end
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _hole(length: int) -> Iterator[bytes]:
    whole = _zeros(HOLE_BYTES) if length >= HOLE_BYTES else b""
    while length >= HOLE_BYTES:
        yield whole
        length -= HOLE_BYTES
    if length:
        yield _zeros(length)


def _zeros(length: int) -> bytes:
    return gzip.compress(bytes(length), 6, mtime=0)


def _stored(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Give one member with a stretch of the file, not compressed."""
    packer = zlib.compressobj(0, zlib.DEFLATED, 31)
    while start < end and (chunk := os.pread(descriptor, min(READ_BYTES, end - start), start)):
        start += len(chunk)
        yield packer.compress(chunk)
    yield packer.flush()
