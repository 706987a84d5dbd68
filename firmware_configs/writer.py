"""Writes regions to a disk or file, reads them back past the cache, and only then makes it a disk with a table.

Rules:
- The old tables go first: a write that is interrupted leaves a medium without partitions, never one that half boots.
- All but the tables is synced and read back; then the backup table, then the first sectors, each synced and read.
- Parts of a file that are all zero are left as holes; on a medium they are written, for old bytes would show through.
- What the medium does wrong (full, gone, other bytes at read-back) is one family of errors, with the place in it.
"""

import errno
import hashlib
import mmap
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.compose import CHUNK_BYTES, Composed, Region
from firmware_configs.errors import MediumError, RefusedError
from firmware_configs.layout import TABLE_BYTES

_ZEROS = bytes(CHUNK_BYTES)
PAGE = 4096
"""Reads past the cache begin and end at these."""


@dataclass(frozen=True)
class Written:
    """One region as it lies on the medium."""

    name: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Progress:
    """How far it is."""

    doing: str
    """writing or reading back."""
    done: int
    total: int
    elapsed_s: float

    @property
    def bytes_per_s(self) -> float:
        """Speed since it began."""
        return self.done / self.elapsed_s if self.elapsed_s > 0 else 0.0

    @property
    def left_s(self) -> float:
        """Time left at this speed."""
        return (self.total - self.done) / self.bytes_per_s if self.done and self.elapsed_s > 0 else 0.0


Tell = Callable[[Progress], None]


class Medium:
    """What is written to: a block device, or a file. The one place that touches it, so that tests can make it fail."""

    def __init__(self, path: Path) -> None:
        """Open it alone: the kernel refuses a device of which something is in use.

        Raises:
            RefusedError: it is in use, or may not be opened.
        """
        self.path = path
        self.is_device = stat.S_ISBLK(path.stat().st_mode)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if self.is_device else 0))
        except OSError as error:
            hint = "unmount what is on it" if error.errno == errno.EBUSY else "are the rights there?"
            raise RefusedError(f"{path} cannot be opened: {error.strerror}", hint=hint) from error

    def write(self, content: bytes, offset: int) -> None:
        """Write all of `content` at `offset`."""
        view = memoryview(content)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def sync(self) -> None:
        """Return when everything is on the medium."""
        os.fsync(self._descriptor)

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """Give the bytes of a stretch as the medium has them, past the page cache where the system can."""
        descriptor = self._open_direct()
        end, place = offset + size, offset // PAGE * PAGE
        try:
            with mmap.mmap(-1, CHUNK_BYTES) as page_aligned:
                while place < end:
                    wanted = min(CHUNK_BYTES, -(-(end - place) // PAGE) * PAGE)
                    with memoryview(page_aligned)[:wanted] as into:
                        count = os.preadv(descriptor, [into], place)
                        if count <= 0:
                            raise OSError(errno.EIO, f"nothing to read at byte {place}")
                        yield bytes(into[max(offset - place, 0) : min(count, end - place)])
                    place += count
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Let it go."""
        os.close(self._descriptor)

    def _open_direct(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:  # a file system without it, such as tmpfs
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            return descriptor


def write_disk(medium: Medium, disk: Composed, tell: Tell) -> list[Written]:
    """Write a composed disk and return what was read back.

    Raises:
        MediumError: the medium is full, gone, or gives back other bytes; it has no partition table then.
    """
    with _as_medium_error(medium.path):
        _clear(medium, disk.layout.total)
        written = _write_all(medium, disk.content, tell)
        _compare(medium, written, tell)
        for region in disk.table:
            written += (last := _write_all(medium, [region], lambda _: None))
            _compare(medium, last, lambda _: None)
        return written


def compare(medium: Medium, written: list[Written], tell: Tell) -> None:
    """Read regions back and compare them with what was written.

    Raises:
        MediumError: other bytes, or none.
    """
    with _as_medium_error(medium.path):
        _compare(medium, written, tell)


def _clear(medium: Medium, total: int) -> None:
    """Take both tables of what was there before away."""
    for offset in (0, total - TABLE_BYTES):
        medium.write(bytes(TABLE_BYTES), offset)
    medium.sync()


def _write_all(medium: Medium, regions: Iterable[Region], tell: Tell) -> list[Written]:
    regions = list(regions)
    total, done, began_s = sum(region.size for region in regions), 0, time.monotonic()
    written = []
    for region in regions:
        digest, offset = hashlib.sha256(), region.offset
        for chunk in region.chunks():
            digest.update(chunk)
            if medium.is_device or chunk != _ZEROS[: len(chunk)]:
                medium.write(chunk, offset)
            offset += len(chunk)
            done += len(chunk)
            tell(Progress("writing", done, total, time.monotonic() - began_s))
        written.append(Written(region.name, region.offset, region.size, digest.hexdigest()))
    medium.sync()
    return written


def _compare(medium: Medium, written: list[Written], tell: Tell) -> None:
    total, done, began_s = sum(region.size for region in written), 0, time.monotonic()
    for region in written:
        digest = hashlib.sha256()
        for chunk in medium.chunks(region.offset, region.size):
            digest.update(chunk)
            done += len(chunk)
            tell(Progress("reading back", done, total, time.monotonic() - began_s))
        if digest.hexdigest() != region.sha256:
            raise MediumError(
                f"{medium.path}: other bytes than were written, in {region.name} ({region.size} from {region.offset})",
                hint="the medium is worn out or claims to be larger than it is: take another one",
            )


@contextmanager
def _as_medium_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        gone = error.errno in (errno.ENODEV, errno.ENXIO, errno.EIO, errno.EBADF)
        hint = (
            "was it pulled out?" if gone else "make room, or take a larger one" if error.errno == errno.ENOSPC else ""
        )
        raise MediumError(
            f"{path}: {error.strerror or error}; it is not finished and has no partitions", hint=hint
        ) from error
