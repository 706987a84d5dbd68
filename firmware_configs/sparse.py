"""Reads and copies files by what is in them: a hole stays a hole, and is not read."""

import os
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 4 * 2**20


def extents(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Give the stretches of an open file between `start` and `end` that are not holes."""
    place = start
    while place < end:
        try:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole to the end
            return
        if begin >= end:
            return
        place = min(os.lseek(descriptor, begin, os.SEEK_HOLE), end)
        yield begin, place


def copy_sparse(source: Path, target: Path, start: int = 0, size: int | None = None) -> None:
    """Copy a file, or `size` bytes of it from `start` on."""
    size = source.stat().st_size - start if size is None else size
    with source.open("rb") as old, target.open("wb") as new:
        new.truncate(size)
        for begin, end in extents(old.fileno(), start, start + size):
            for place in range(begin, end, CHUNK_BYTES):
                content = os.pread(old.fileno(), min(CHUNK_BYTES, end - place), place)
                os.pwrite(new.fileno(), content, place - start)


def put(descriptor: int, content: bytes, offset: int) -> None:
    """Write into an open file, but leave a hole where nothing but zeros would be written."""
    if content.strip(b"\0") or next(extents(descriptor, offset, offset + len(content)), None):
        os.pwrite(descriptor, content, offset)
