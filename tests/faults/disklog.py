"""Runs a program while all that it does to a folder is written down, and gives the disk as it was after each step.

What SQLite writes goes past Python; so `disklog.c` stands in for the C library's functions, in the program alone.

Rules:
- The disk is the one of `powercut`: data that was not synced is lost, torn or there, names last from the sync of their
  folder on.
- What the program writes to the file `PROMISES` is not part of its disk: each line is a promise, from then on.
"""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.powercut import Disk, Inode

PROMISES = "promises"
PROMISED, CREATED, WRITTEN, CUT, SYNCED, FOLDER_SYNCED, MOVED, DROPPED = range(8)
"""What was done; all but the first are those of `disklog.c`."""
_HEAD = struct.Struct("<QQQQ")


def built(folder: Path) -> Path:
    """Return the library that writes down; skip where no C compiler is."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("needs a C compiler (Debian: gcc)")
    library = folder / "disklog.so"
    source = Path(__file__).with_name("disklog.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library), "-ldl"], check=True)
    return library


def logged(command: list[str], folder: Path, library: Path, log: Path) -> bytes:
    """Run a program to its end; return what it did to the folder."""
    watched = {"LD_PRELOAD": str(library), "DISKLOG_DIR": str(folder), "DISKLOG_TO": str(log)}
    subprocess.run(command, check=True, timeout=120, env=os.environ | watched)
    return log.read_bytes()


def moments(log: bytes) -> Iterator[tuple[Disk, int, list[str]]]:
    """Give the disk after each operation, which one it was, and what was promised by then.

    The disk goes on to change: look at it before the next one, or freeze it.
    """
    disk = Disk()
    files: dict[int, Inode] = {}
    promises: list[str] = []
    silent: set[int] = set()
    for what, file, offset, data in _records(log):
        if what == CREATED and Path(data[:-1].decode()).name == PROMISES:
            silent.add(file)
        elif file in silent and what == WRITTEN:
            promises.append(data.decode().strip())
            yield disk, PROMISED, promises
        elif file not in silent:
            _done(disk, files, what, file, offset, data)
            yield disk, what, promises


def _records(log: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at < len(log):
        what, file, offset, length = _HEAD.unpack_from(log, at)
        at += _HEAD.size
        # Nothing but the size comes with a cut.
        yield what, file, offset, log[at : at + length]
        at += length


def _done(disk: Disk, files: dict[int, Inode], what: int, file: int, offset: int, data: bytes) -> None:
    if what == CREATED:
        files[file] = Inode()
        disk.pending.append(("put", data[:-1].decode(), files[file]))
    elif what == WRITTEN:
        inode = files[file]
        before = inode.written[:offset].ljust(offset, b"\0")
        inode.written = before + data + inode.written[offset + len(data) :]
    elif what == CUT:
        files[file].written = files[file].written[:offset].ljust(offset, b"\0")
    elif what == SYNCED:
        files[file].safe = files[file].written
    elif what == FOLDER_SYNCED:
        for folder in {str(Path(name).parent) for _, name, _ in disk.pending}:
            disk.sync(folder)
    elif what == MOVED:
        source, target = data[:-1].decode().split("\0")
        disk.pending.append(("move", source, target))
    else:
        disk.pending.append(("drop", data[:-1].decode(), None))
