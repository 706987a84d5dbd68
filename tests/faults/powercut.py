"""A disk that loses what was not synced: records what a program does to a folder, and gives the states a cut may leave.

Rules:
- Names are journalled in order: after a cut, a prefix of the creations, renames and removals since the last sync of
  their folder is there. The data of a file is there if it was synced; else it is lost, or torn by sectors, or whole.
- Only what goes through `os` (open, fdopen, fsync, replace, rename, unlink) or `io.open` (anew or to append) is seen:
  all that `edge.files` and `edge.fetch` use.
"""

import io
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

SECTOR = 512
FATES = ("lost", "torn", "whole")
"""What may become of data that was not synced."""


@dataclass
class Inode:
    """A file's data: what is safe, and what was written since."""

    safe: bytes = b""
    written: bytes = b""


@dataclass
class Disk:
    """The folder as it was at one moment: names that are safe, and changes of names that are not."""

    names: dict[str, Inode] = field(default_factory=dict)
    pending: list[tuple[str, str, Inode | str | None]] = field(default_factory=list)
    """("put", path, inode), ("move", from, to), ("drop", path, None), in order."""

    def frozen(self) -> "Disk":
        """Return a copy that later operations do not change."""
        copies: dict[int, Inode] = {}

        def copy(inode: Inode) -> Inode:
            return copies.setdefault(id(inode), Inode(inode.safe, inode.written))

        names = {path: copy(inode) for path, inode in self.names.items()}
        pending = [(do, path, copy(what) if isinstance(what, Inode) else what) for do, path, what in self.pending]
        return Disk(names, pending)

    def sync(self, folder: str) -> None:
        """Make the names of a folder safe."""
        left = []
        for do, path, what in self.pending:
            if str(Path(path).parent) == folder:
                _apply(self.names, do, path, what)
            else:
                left.append((do, path, what))
        self.pending = left

    def after_a_cut(self, rng: random.Random, *, names: int, data: str) -> dict[str, bytes]:
        """Return the files that are there after a cut: so many pending names, and this fate of unsynced data."""
        here = dict(self.names)
        for do, path, what in self.pending[:names]:
            _apply(here, do, path, what)
        return {path: _left(inode, rng, data) for path, inode in here.items()}


@dataclass
class Recorder:
    """What happened: the disk after every operation, with a mark of what the program had promised by then."""

    moments: list[tuple[Disk, Any]] = field(default_factory=list)
    disk: Disk = field(default_factory=Disk)
    promised: Any = None
    _open: dict[int, str] = field(default_factory=dict)

    def took_place(self) -> None:
        self.moments.append((self.disk.frozen(), self.promised))

    def inode(self, path: str) -> Inode:
        """Return the file that has this name now, pending changes included."""
        return self._here()[path]

    def has(self, path: str) -> bool:
        """Return whether a file has this name now."""
        return path in self._here()

    def _here(self) -> dict[str, Inode]:
        here = dict(self.disk.names)
        for do, name, what in self.disk.pending:
            _apply(here, do, name, what)
        return here


def states(disk: Disk, rng: random.Random) -> list[dict[str, bytes]]:
    """Return what may be on a disk whose power was cut at this moment, each state once."""
    found: list[dict[str, bytes]] = []
    for names in range(len(disk.pending) + 1):
        for fate in FATES:
            state = disk.after_a_cut(rng, names=names, data=fate)
            if state not in found:
                found.append(state)
    return found


def restore(folder: Path, state: dict[str, bytes], *subfolders: str) -> None:
    """Make a folder hold these files and nothing else, and folders that were there before anything was recorded."""
    shutil.rmtree(folder)
    for made in (folder, *(folder / name for name in subfolders)):
        made.mkdir(parents=True)
    for name, content in state.items():
        Path(name).write_bytes(content)


@contextmanager
def recorded(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """Record what is done to files below `folder` while the block runs."""
    watch = _Watch(folder)
    for name, function in watch.functions().items():
        patch.setattr(os, name, function)
    patch.setattr(io, "open", watch.open_file)
    try:
        yield watch.recorder
    finally:
        patch.undo()


class _Watch:
    """Stands in for the functions of `os`: does what they do, and writes down what they did to the folder."""

    def __init__(self, folder: Path) -> None:
        self.recorder = Recorder()
        self._root = str(folder)
        self._paths: dict[int, str] = {}
        self._real = {name: getattr(os, name) for name in ("open", "fdopen", "fsync", "replace", "rename", "unlink")}
        self._real_open_file = io.open

    def functions(self) -> dict[str, Any]:
        return {
            "open": self._open,
            "fdopen": self._fdopen,
            "fsync": self._fsync,
            "replace": self._replace,
            "rename": self._replace,
            "unlink": self._unlink,
        }

    def open_file(self, path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        """Stand in for `io.open`, which `pathlib` uses."""
        file = self._real_open_file(path, mode, *rest, **named)
        name = os.fspath(path) if not isinstance(path, int) else ""
        if not isinstance(name, str) or not name.startswith(self._root) or mode in ("r", "rb"):
            return file
        assert mode in ("ab", "wb"), f"opening with {mode!r} is not recorded"
        self._paths[file.fileno()] = name
        if not self.recorder.has(name):
            self._note("put", name, Inode())
        watched = _Watched(cast(io.BufferedWriter, file), self.recorder, name)
        if mode == "wb":
            watched.forget(0)
        return watched

    def _open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        descriptor: int = self._real["open"](path, flags, *rest, **named)
        name = os.fspath(path)
        self._paths.pop(descriptor, None)  # of a file that was closed
        if isinstance(name, str) and name.startswith(self._root):
            self._paths[descriptor] = name
            if flags & os.O_CREAT and not flags & os.O_DIRECTORY:
                self._note("put", name, Inode())
        return descriptor

    def _fdopen(self, descriptor: int, *rest: Any, **named: Any) -> Any:
        file = self._real["fdopen"](descriptor, *rest, **named)
        return _Watched(file, self.recorder, self._paths[descriptor]) if descriptor in self._paths else file

    def _fsync(self, descriptor: int) -> None:
        self._real["fsync"](descriptor)
        name = self._paths.get(descriptor)
        if name is None:
            return
        if Path(name).is_dir():
            self.recorder.disk.sync(name)
        else:
            inode = self.recorder.inode(name)
            inode.safe = inode.written
        self.recorder.took_place()

    def _replace(self, source: Any, target: Any, **named: Any) -> None:
        self._real["replace"](source, target, **named)
        if os.fspath(source).startswith(self._root):
            self._note("move", os.fspath(source), os.fspath(target))

    def _unlink(self, path: Any, **named: Any) -> None:
        self._real["unlink"](path, **named)
        if os.fspath(path).startswith(self._root):
            self._note("drop", os.fspath(path), None)

    def _note(self, do: str, path: str, what: Inode | str | None) -> None:
        self.recorder.disk.pending.append((do, path, what))
        self.recorder.took_place()


class _Watched:
    """A file whose writes are seen."""

    def __init__(self, file: io.BufferedWriter, recorder: Recorder, path: str) -> None:
        self._file, self._recorder, self._path = file, recorder, path

    def write(self, data: bytes) -> int:
        inode = self._recorder.inode(self._path)
        inode.written += data
        self._recorder.took_place()
        return self._file.write(data)

    def truncate(self, size: int) -> int:
        self.forget(size)
        return self._file.truncate(size)

    def forget(self, size: int) -> None:
        """Note that nothing is left beyond so many bytes."""
        inode = self._recorder.inode(self._path)
        inode.written = inode.written[:size]
        self._recorder.took_place()

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _apply(names: dict[str, Inode], do: str, path: str, what: Inode | str | None) -> None:
    if do == "put":
        assert isinstance(what, Inode)
        names[path] = what
    elif do == "drop":
        names.pop(path, None)
    elif path in names:
        assert isinstance(what, str)
        names[what] = names.pop(path)


def _left(inode: Inode, rng: random.Random, fate: str) -> bytes:
    if inode.safe == inode.written or fate == "whole":
        return inode.written
    if fate == "lost":
        return inode.safe
    torn = bytearray(inode.written)
    for start in range(0, len(torn), SECTOR):
        if rng.random() < 0.5:
            length = len(torn[start : start + SECTOR])
            torn[start : start + SECTOR] = inode.safe[start : start + length].ljust(length, b"\0")
    return bytes(torn)
