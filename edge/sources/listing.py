"""Lists the files of a folder as inputs: each once, in natural order, and only when its writer is done with it.

Rules:
- A file is taken when it has not changed for `SETTLE_S`, or between two scans; names that begin with a dot are
  somebody's work in progress. A writer that pauses for longer should rename the finished file into place.
- A file whose size or time changes later is a new input.
- Scanning takes at most a twentieth of the time, however large the folder is: new files in a folder of 50,000
  are noticed within seconds, in a small one within `SCAN_INTERVAL_S`.
- Memory grows with the folder, not with time: of each file its name and stamp are kept, 300 bytes; files that are
  gone are forgotten.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
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
        self._folder = path
        self._loop, self._watch = loop, watch
        self.round = 1
        """Counts the times that the files were gone through."""
        self._taken: dict[str, Stamp] = {}
        """What was given, or waits in the queue."""
        self._unsettled: dict[str, Stamp] = {}
        """What may still be written to."""
        self._queue: list[str] = []
        """Names of what is to come, the next one last."""
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
        name = self._queue.pop()
        return Entry(self._folder / name, self._taken[name])

    def again(self, entry: Entry) -> None:
        """Take back a file that turned out to be still written to: it comes again when it has settled."""
        self._taken.pop(entry.path.name, None)
        self._unsettled[entry.path.name] = entry.stamp

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
        return self._watch or self._loop or bool(self._unsettled)

    def _begin_round(self) -> None:
        self.round += 1
        self._given_this_round = False
        self._queue = _last_first(self._taken)

    def _scan(self) -> None:
        started = self._clock.monotonic_s()
        self._folder = self._path if self._path.is_dir() else self._path.parent
        fresh = self._look()
        if fresh:
            self._taken.update(fresh)
            self._queue = _last_first([*(name for name in self._queue if name not in fresh), *fresh])
        took_s = self._clock.monotonic_s() - started
        self._next_scan_s = started + took_s + max(SCAN_INTERVAL_S, took_s * _SCAN_SHARE)

    def _look(self) -> dict[str, Stamp]:
        """Return what was found for the first time, or anew, and is no longer written to; forget what is gone."""
        since_ns = (self._clock.now_ms() - round(SETTLE_S * 1000)) * 1_000_000
        before, still_there = self._unsettled, 0
        fresh: dict[str, Stamp] = {}
        unsettled: dict[str, Stamp] = {}
        for name, stamp in self._files():
            known = self._taken.get(name)
            still_there += known is not None
            if known == stamp:
                continue
            settled = stamp == before.get(name) or stamp[1] < since_ns
            (fresh if settled else unsettled)[name] = stamp
        self._unsettled = unsettled
        if still_there != len(self._taken):
            # Seldom: names are gathered only when some are gone, so that a scan of a large folder takes no memory.
            self._forget_all_but({name for name, _ in self._files()})
        return fresh

    def _forget_all_but(self, names: set[str]) -> None:
        self._taken = {name: stamp for name, stamp in self._taken.items() if name in names}
        self._queue = [name for name in self._queue if name in names]

    def _files(self) -> Iterator[tuple[str, Stamp]]:
        try:
            if self._path.is_file():
                status = self._path.stat()
                yield self._path.name, (status.st_size, status.st_mtime_ns)
                return
            with os.scandir(self._path) as entries:
                for entry in entries:
                    stamp = self._stamp(entry)
                    if stamp is not None:
                        yield entry.name, stamp
        except OSError as error:
            raise SourceError(
                f"{self._path}: cannot be listed: {error.strerror or error}",
                hint="check the path, its permissions, and that what it lies on is mounted",
            ) from error

    def _stamp(self, entry: "os.DirEntry[str]") -> Stamp | None:
        if entry.name.startswith(".") or not self._accepts(entry.name):
            return None
        try:
            if not entry.is_file():
                return None
            status = entry.stat()
        except OSError:
            return None  # gone since the folder was read, or a link to nowhere
        return status.st_size, status.st_mtime_ns


def _natural(name: str) -> Any:
    """Return what sorts names in their natural order: numbers within them count as numbers, the suffix counts last."""
    stem, dot, suffix = name.rpartition(".")
    parts: list[str | int] = list(_NUMBER.split(stem if dot else name))
    parts[1::2] = map(int, parts[1::2])
    return parts, suffix, name


def _last_first(names: Iterable[str]) -> list[str]:
    return sorted(names, key=_natural, reverse=True)
