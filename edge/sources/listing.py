"""Lists the files of a folder as inputs: each once, in natural order, and only when its writer is done with it.

Rules:
- A file is taken when it has not changed for `SETTLE_S`, or between two scans; names that begin with a dot are
  somebody's work in progress. A writer that pauses for longer should rename the finished file into place.
- A file whose size or time changes later is a new input.
- Scanning takes at most a twentieth of the time, however large the folder is: new files in a folder of 50,000
  are noticed within seconds, in a small one within `SCAN_INTERVAL_S`.
- Memory grows with the folder, not with time: files that are gone are forgotten.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.clock import Clock
from edge.errors import SourceError

SCAN_INTERVAL_S = 0.15
SETTLE_S = 0.2
_SCAN_SHARE = 20
_NUMBER = re.compile(r"([0-9]+)")

Stamp = tuple[int, int]
"""Size in bytes and time of last change in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file as a scan found it."""

    path: Path
    stamp: Stamp
    order: Any = field(repr=False, compare=False)
    """Natural order: numbers within names count as numbers, the suffix counts last."""

    @property
    def name(self) -> str:
        """The file's name as text that can be stored and shown, whatever bytes it is made of."""
        return os.fsencode(self.path.name).decode("utf-8", "backslashreplace")

    @property
    def key(self) -> str:
        return f"{self.name}:{self.stamp[0]}:{self.stamp[1]}"


class Listing:
    """The inputs in a folder, or one file. Used by one thread."""

    def __init__(self, path: Path, accepts: Callable[[str], bool], clock: Clock, *, loop: bool, watch: bool) -> None:
        """Scan for the first time.

        Raises:
            SourceError: there is nothing at `path`, or it cannot be listed.
        """
        self._path, self._accepts, self._clock = path, accepts, clock
        self._loop, self._watch = loop, watch
        self.round = 1
        """Counts the times that the files were gone through."""
        self._found: dict[str, Stamp] = {}
        self._taken: dict[str, Entry] = {}
        self._queue: list[Entry] = []
        """What is to come, the next one last."""
        self._given_this_round = False
        self._next_scan_s = 0.0
        self._scan()

    def next(self) -> Entry | None:
        """Return the next file, or None if there is none now.

        Raises:
            SourceError: the folder is gone or cannot be listed.
        """
        if self._clock.monotonic_s() >= self._next_scan_s and self._may_change:
            self._scan()
        if not self._queue and self._loop and self._given_this_round:
            self._begin_round()
        if not self._queue:
            return None
        self._given_this_round = True
        return self._queue.pop()

    def again(self, entry: Entry) -> None:
        """Take back a file that turned out to be still written to: it comes again when it has settled."""
        self._taken.pop(entry.path.name, None)

    def seconds_to_scan(self) -> float:
        """Return how long nothing new can come."""
        return max(0.0, self._next_scan_s - self._clock.monotonic_s())

    @property
    def ready(self) -> bool:
        """Whether `next` will give a file at once."""
        return bool(self._queue)

    @property
    def exhausted(self) -> bool:
        """Whether nothing will ever come again."""
        return not (self._queue or self._may_change or self._loop)

    @property
    def _may_change(self) -> bool:
        return self._watch or self._loop or len(self._found) != len(self._taken)  # what is taken was found

    def _begin_round(self) -> None:
        self.round += 1
        self._given_this_round = False
        self._queue = _last_first(self._taken.values())

    def _scan(self) -> None:
        started = self._clock.monotonic_s()
        before, self._found = self._found, self._list()
        took_s = self._clock.monotonic_s() - started
        self._next_scan_s = started + took_s + max(SCAN_INTERVAL_S, took_s * _SCAN_SHARE)
        for name in self._taken.keys() - self._found.keys():
            del self._taken[name]
        fresh = self._settled(before)
        if fresh:
            self._taken.update(fresh)
            waiting = [entry for entry in self._queue if self._taken.get(entry.path.name) is entry]
            self._queue = _last_first([*waiting, *fresh.values()])

    def _settled(self, before: dict[str, Stamp]) -> dict[str, Entry]:
        """Return what was found for the first time, or anew, and is no longer written to."""
        since_ns = (self._clock.now_ms() - round(SETTLE_S * 1000)) * 1_000_000
        folder, fresh = self._folder(), {}
        for name, stamp in self._found.items():
            known = self._taken.get(name)
            if (known is None or known.stamp != stamp) and (stamp == before.get(name) or stamp[1] < since_ns):
                fresh[name] = Entry(folder / name, stamp, _natural(name))
        return fresh

    def _folder(self) -> Path:
        return self._path if self._path.is_dir() else self._path.parent

    def _list(self) -> dict[str, Stamp]:
        try:
            if self._path.is_file():
                status = self._path.stat()
                return {self._path.name: (status.st_size, status.st_mtime_ns)}
            with os.scandir(self._path) as entries:
                return dict(filter(None, (self._listed(entry) for entry in entries)))
        except OSError as error:
            raise SourceError(
                f"{self._path}: cannot be listed: {error.strerror or error}",
                hint="check the path, its permissions, and that what it lies on is mounted",
            ) from error

    def _listed(self, entry: "os.DirEntry[str]") -> tuple[str, Stamp] | None:
        if entry.name.startswith(".") or not self._accepts(entry.name):
            return None
        try:
            if not entry.is_file():
                return None
            status = entry.stat()
        except OSError:
            return None  # gone since the folder was read, or a link to nowhere
        return entry.name, (status.st_size, status.st_mtime_ns)


def _natural(name: str) -> Any:
    stem, dot, suffix = name.rpartition(".")
    parts: list[str | int] = list(_NUMBER.split(stem if dot else name))
    parts[1::2] = map(int, parts[1::2])
    return parts, suffix, name


def _last_first(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.order, reverse=True)
