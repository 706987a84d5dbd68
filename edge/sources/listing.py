"""Lists the files of a folder as inputs: each once, in natural order, and only when its writer is done with it.

Rules:
- A file is taken when it has not changed for `SETTLE_S`, or between two scans; names that begin with a dot are
  somebody's work in progress. A writer that pauses for longer should rename the finished file into place.
- A file whose size or time changes later is a new input.
- Scanning takes at most a twentieth of the time, however large the folder is.
- Memory grows with the folder, not with time: files that are gone are forgotten.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from natsort import natsort_keygen, ns

from edge.clock import Clock
from edge.errors import SourceError

SCAN_INTERVAL_S = 0.15
SETTLE_S = 0.2
_SCAN_SHARE = 20

_natural = natsort_keygen(alg=ns.PATH)

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
        self._loop, self._watch = loop, watch
        self.round = 1
        """Counts the times that the files were gone through."""
        self._found: dict[str, Stamp] = {}
        self._taken: dict[str, Stamp] = {}
        self._queue: deque[Entry] = deque()
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
        return self._queue.popleft()

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
        return self._watch or self._loop or self._found.keys() != self._taken.keys()

    def _begin_round(self) -> None:
        self.round += 1
        self._given_this_round = False
        folder = self._folder()
        self._queue.extend(Entry(folder / name, self._taken[name]) for name in sorted(self._taken, key=_natural))

    def _scan(self) -> None:
        started = self._clock.monotonic_s()
        settled_before_ns = (self._clock.now_ms() - round(SETTLE_S * 1000)) * 1_000_000
        before, self._found = self._found, self._list()
        folder = self._folder()
        fresh = []
        for name, stamp in self._found.items():
            if self._taken.get(name) == stamp:
                continue
            if stamp == before.get(name) or stamp[1] < settled_before_ns:
                fresh.append(Entry(folder / name, stamp))
                self._taken[name] = stamp
        for name in self._taken.keys() - self._found.keys():
            del self._taken[name]
        if fresh:
            waiting = [entry for entry in self._queue if self._taken.get(entry.path.name) == entry.stamp]
            merged = {entry.path.name: entry for entry in [*waiting, *fresh]}
            self._queue = deque(sorted(merged.values(), key=lambda entry: _natural(entry.path.name)))
        now = self._clock.monotonic_s()
        self._next_scan_s = now + max(SCAN_INTERVAL_S, (now - started) * _SCAN_SHARE)

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
