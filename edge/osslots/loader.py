"""Two slots behind a boot loader that reads entries from a folder: what the real ones and the simulated have in common.

Rules:
- The boot partition is FAT, which keeps no journal: what exists is not written over. Files come under a name of their
  own, are synced, and are renamed; an entry appears last, and goes first.
- FAT keeps a file's size and place in the folder: after a rename the file is synced again before the folder is, or its
  new name stands for nothing until the kernel writes that back, half a minute later.
- Nothing here sets owners or modes: FAT has none.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from edge.errors import ConfigError, StoreError
from edge.files import sync_directory
from edge.osslots import entries
from edge.osslots.entries import Entry
from edge.osslots.interface import OTHER, Running, SlotName, Tries
from edge.wire.base import BundleRef
from edge.wire.osimage import INITRD, KERNEL

ENTRIES = "loader/entries"
COPY_BYTES = 2**20
MAX_ENTRY_BYTES = 16 * 1024
TRIAL, WHY = "trial", "why"
"""Files of the state folder: what the watch outside of the daemon is to do, and what it has noted."""
MAX_WHY_CHARS = 1000


class Board(Protocol):
    """What differs from board to board."""

    def options(self) -> str:
        """Return the kernel's command line of this start."""
        ...

    def root_of(self, slot: SlotName) -> str:
        """Return what the kernel is to mount for a slot."""
        ...

    def say_well(self) -> None:
        """Say that this start is well."""
        ...

    def restart(self) -> None:
        """Ask for a restart."""
        ...


@dataclass(frozen=True)
class Places:
    """Where things are."""

    boot: Path
    """The mounted boot partition."""
    devices: dict[SlotName, Path]
    """Block devices or files of the two roots."""
    state: Path
    """A folder that lasts."""


class LoaderSlots:
    """Slots whose boot loader counts tries in the names of its entries."""

    def __init__(self, places: Places, board: Board) -> None:
        """Find out what runs.

        Raises:
            ConfigError: this start does not say which system it is.
        """
        self._places = places
        self._board = board
        self._entries = places.boot / ENTRIES
        found = entries.system_of(board.options())
        if found is None:
            raise ConfigError(
                "os.slots: the kernel's command line does not say which system runs",
                hint="the card was written before there were updates of the system; write it again, or take [os] out",
            )
        self.running = Running(*found)
        self._other = OTHER[self.running.slot]

    @property
    def capacity_bytes(self) -> int:
        with self.open_other(writable=False) as device:
            return device.seek(0, os.SEEK_END)

    def tries(self, slot: SlotName) -> Tries | None:
        entry = self._entry(slot)
        return entry.tries if entry else None

    def startable(self, slot: SlotName) -> BundleRef | None:
        entry = self._entry(slot)
        found = entries.system_of(entry.options) if entry else None
        return found[1] if found else None

    def close_off(self, slot: SlotName) -> None:
        if slot == self.running.slot and self._entry(OTHER[slot]) is None:
            raise StoreError("the other slot cannot be started: this one is not left", retry=False)
        with _disk(self._entries):
            for path in self._files(slot):
                path.unlink()
            sync_directory(self._entries)

    @contextmanager
    def open_other(self, *, writable: bool) -> Iterator[BinaryIO]:
        path = self._places.devices[self._other]
        if writable and self._files(self._other):
            raise StoreError(f"slot {self._other} could be started: it is not written", retry=False)
        with _disk(path), open(path, "r+b" if writable else "rb", buffering=0) as device:  # noqa: PTH123 - the recorder
            yield device

    def put_boot_file(self, name: str, read: Callable[[int], bytes]) -> None:
        folder = self._places.boot / self._other
        if self._files(self._other):
            raise StoreError(f"slot {self._other} could be started: its {name} is not written", retry=False)
        with _disk(folder):
            if not folder.is_dir():
                folder.mkdir()
                sync_directory(folder.parent)
            _put(folder / name, read)

    @contextmanager
    def boot_file(self, name: str) -> Iterator[BinaryIO]:
        path = self._places.boot / self._other / name
        with _disk(path), path.open("rb") as file:
            yield file

    def arm(self, ref: BundleRef, tries: int) -> None:
        own = self._entry(self.running.slot)
        options = own.options if own else self._board.options()
        root = self._board.root_of(self._other)
        version = max((entry.version for entry in self._all()), default=0) + 1
        entry = Entry(self._other, Tries(tries), version, entries.options_for(options, self._other, root, ref))
        self.close_off(self._other)
        missing = [n for n in (KERNEL, INITRD) if not (self._places.boot / self._other / n).is_file()]
        if missing:
            raise StoreError(f"slot {self._other} has no {' and no '.join(missing)}", retry=False)
        with _disk(self._entries):
            _put(self._entries / entry.name, _reader(entry.text.encode()))

    def confirm(self) -> None:
        entry = self._entry(self.running.slot)
        if entry is None or entry.tries.left is None:
            return
        with _disk(self._entries):
            before = self._entries / entry.name
            _move(before, self._entries / entries.confirmed(entry).name)

    def watch_trial(self, deadline_s: float | None) -> None:
        state = self._places.state
        with _disk(state):
            if deadline_s is None:
                for name in (TRIAL, WHY):
                    (state / name).unlink(missing_ok=True)
                sync_directory(state)
                return
            (state / WHY).unlink(missing_ok=True)
            _put(state / TRIAL, _reader(f"{self._other} {deadline_s:.0f}\n".encode()))

    def why_left(self) -> str:
        try:
            with (self._places.state / WHY).open("rb") as file:
                return " ".join(file.read(MAX_WHY_CHARS).decode(errors="replace").split())
        except OSError:
            return ""

    def say_well(self) -> None:
        self._board.say_well()

    def restart(self) -> None:
        self._board.restart()

    def _entry(self, slot: SlotName) -> Entry | None:
        """Return the slot's entry; after a cut within a rename there may be two, of which the confirmed one counts."""
        found = [entry for entry in self._all() if entry.slot == slot]
        return min(found, key=lambda entry: entry.tries.left is not None, default=None)

    def _all(self) -> list[Entry]:
        return read_entries(self._places.boot)

    def _files(self, slot: SlotName) -> list[Path]:
        """Return every file of a slot's entries, also of those that are not whole."""
        names = {path: entries.ENTRY_NAME.fullmatch(path.name) for path in self._entries.glob("lineside-*.conf")}
        return sorted(path for path, found in names.items() if found and found[1] == slot)


def read_entries(boot: Path) -> list[Entry]:
    """Return the entries of a boot partition that are whole.

    Raises:
        StoreError: it cannot be read.
    """
    folder, found = boot / ENTRIES, []
    with _disk(folder):
        for path in sorted(folder.glob("lineside-*.conf")):
            if path.stat().st_size <= MAX_ENTRY_BYTES:
                found.append(entries.parse(path.name, path.read_text(errors="replace")))
    return [entry for entry in found if entry is not None]


def _put(path: Path, read: Callable[[int], bytes]) -> None:
    """Put a file in place, whole and lasting; nothing has its name before that."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := read(COPY_BYTES):
            file.write(chunk)
        file.flush()
        os.fsync(descriptor)
    _move(temporary, path)


def _move(before: Path, after: Path) -> None:
    """Give a file another name, for good; on FAT the name means something only once the file was synced under it."""
    before.replace(after)
    descriptor = os.open(after, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(after.parent)


def _reader(content: bytes) -> Callable[[int], bytes]:
    left = [content, b""]
    return lambda _size: left.pop(0)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror or error}", hint="may the daemon's user write there?") from error
