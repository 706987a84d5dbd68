"""Reads the log of a guest's writes: QEMU's `blklogwrites`, the format of Linux' dm-log-writes.

Rules:
- The order of the log is the order of the requests. What the log cannot say (was it complete?) is not guessed: a flush
  makes durable what stands before it, nothing else does.
- A log whose end was cut off is read up to its last whole entry.

Format: the kernel's admin-guide/device-mapper/log-writes, and `struct log_write_entry` of drivers/md/dm-log-writes.c.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from firmware_configs.errors import BuildError

MAGIC, VERSION = 0x6A736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR = 512
_SUPER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")


@dataclass(frozen=True)
class Entry:
    """One request; bytes from the beginning of the disk."""

    offset: int
    size: int
    flags: int
    data_at: int
    """Where its bytes lie in the log."""
    end: int
    """Where the next entry begins in the log."""

    @property
    def flushes(self) -> bool:
        """Whether everything before it is durable once it has happened."""
        return bool(self.flags & FLUSH)

    @property
    def lasting(self) -> bool:
        """Whether it is durable itself once it has happened."""
        return bool(self.flags & FUA)

    @property
    def writes(self) -> bool:
        """Whether it changes bytes; what a discarded block holds is not known, so a discard changes none here."""
        return self.size > 0 and not self.flags & (DISCARD | MARK)


def read_log(path: Path) -> list[Entry]:
    """Return the entries of a log.

    Raises:
        BuildError: it is none.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SUPER.size)
        magic, version, _, sector = _SUPER.unpack(head) if len(head) == _SUPER.size else (0, 0, 0, 0)
        if (magic, version) != (MAGIC, VERSION) or sector < SECTOR:
            raise BuildError(f"{path}: expected a write log, got {head[:16].hex() or 'nothing'}")
        return list(_entries(file.fileno(), size, sector))


def write_log(path: Path, entries: list[tuple[int, bytes, int]]) -> None:
    """Write a log as QEMU does: for each request its offset, its bytes and its flags; all in whole sectors."""
    with path.open("wb") as file:
        file.write(_SUPER.pack(MAGIC, VERSION, len(entries), SECTOR).ljust(SECTOR, b"\0"))
        for offset, data, flags in entries:
            head = _ENTRY.pack(offset // SECTOR, len(data) // SECTOR, flags, 0)
            file.write(head.ljust(SECTOR, b"\0") + data)


def _entries(descriptor: int, size: int, sector: int) -> Iterator[Entry]:
    place = sector
    while place + _ENTRY.size <= size:
        at, count, flags, extra = _ENTRY.unpack(os.pread(descriptor, _ENTRY.size, place))
        if not (count or flags):
            return  # room that was taken and never written
        data_at = place + sector
        end = data_at + (0 if flags & DISCARD else count * sector)
        if end > size:
            return
        yield Entry(at * sector, count * sector, flags, data_at, end)
        place = end if not flags & MARK else data_at + -(-extra // sector) * sector
