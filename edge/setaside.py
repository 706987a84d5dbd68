"""Keeps a damaged record aside, beside the new one: moved whole, salvaged once, and removed when it must not stay.

Rules:
- A move that was cut short goes on at the next opening: half of a database is none.
- A copy that is still to be salvaged is never removed; one that was is kept for a person to look at, until a limit of
  bytes or age, or a request to forget, says otherwise.
- To remove is to overwrite first: a copy holds pictures, sounds and texts.
"""

from dataclasses import dataclass
from pathlib import Path

from edge.files import erase_file, sync_directory, write_atomic


@dataclass(frozen=True, slots=True)
class DamagedCopy:
    """A damaged predecessor that was set aside and salvaged: nothing reads it any more but a person."""

    path: Path
    set_aside_ms: int

    @property
    def parts(self) -> list[Path]:
        """The file and its log, as far as they are there."""
        parts = (self.path.with_name(self.path.name + ending) for ending in ("", "-wal", "-shm"))
        return [part for part in parts if part.exists()]

    @property
    def size_bytes(self) -> int:
        return sum(part.stat().st_size for part in self.parts)

    def erase(self) -> None:
        """Overwrite and remove it.

        Raises:
            StoreError: the disk does not allow it.
        """
        for part in reversed(self.parts):  # the file last: without it, nobody would look for the rest
            erase_file(part)


def damaged_copies(path: Path) -> list[DamagedCopy]:
    """Return the damaged predecessors beside a record, oldest first; not one that is still to be salvaged."""
    waiting = to_salvage(path)
    beginning = f"{path.name}.damaged-"
    found = [
        DamagedCopy(copy, int(copy.name.removeprefix(beginning)))
        for copy in path.parent.glob(f"{beginning}*")
        if copy.name.removeprefix(beginning).isdigit() and copy != waiting
    ]
    return sorted(found, key=lambda copy: copy.set_aside_ms)


def put_aside(path: Path, now_ms: int) -> None:
    """Move a damaged record out of the way, as `NAME.damaged-<ms>`.

    Raises:
        OSError, StoreError: the disk does not allow it.
    """
    write_atomic(_moving_mark(path), f"{path.name}.damaged-{now_ms}".encode())
    finish(path)


def moving(path: Path) -> bool:
    """Return whether a move was cut short."""
    return _moving_mark(path).exists()


def finish(path: Path) -> None:
    """Do what is left of a move.

    Raises:
        OSError, StoreError: the disk does not allow it.
    """
    name = _moving_mark(path).read_text()
    for ending in ("-wal", "-shm", ""):
        part = path.with_name(path.name + ending)
        if part.exists():
            part.replace(path.with_name(name + ending))
    sync_directory(path.parent)
    write_atomic(_salvage_mark(path), name.encode())
    suspect_mark(path).unlink(missing_ok=True)
    _moving_mark(path).unlink()


def to_salvage(path: Path) -> Path | None:
    """Return the copy that is still to be salvaged, or None."""
    mark = _salvage_mark(path)
    return path.with_name(mark.read_text()) if mark.exists() else None


def salvaged(path: Path) -> None:
    """Take note that nothing more is to be had from the damaged predecessor."""
    _salvage_mark(path).unlink(missing_ok=True)


def suspect_mark(path: Path) -> Path:
    """Return the file whose being there says that the record is to be checked whole."""
    return path.with_name(f"{path.name}.suspect")


def _salvage_mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.salvage")


def _moving_mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.moving")
