"""Says what a disk may hold after its power was cut at a point of its write log, and puts that together.

Rules:
- Everything before the last flush is there. Of what came after it any part may be: nothing, all, a beginning, some of
  the writes, some of the sectors of some writes. A write that was marked as durable is there once another came after.
- The state comes from the seed and the point alone: the same two give the same bytes again.
- A state is laid over the working file and taken off again; only the blocks that differ are touched.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from firmware_configs.prove.writelog import SECTOR, Entry
from firmware_configs.sparse import copy_sparse, put

Way = Literal["nothing", "all", "beginning", "some", "torn"]
WAYS: tuple[Way, ...] = ("nothing", "all", "beginning", "some", "torn")
KEPT_SHARE = 0.5
MAX_TORN = 128
"""Into so many stretches at most a write is torn: more would differ in nothing that anybody looks at."""
COPY_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Piece:
    """Bytes of the log that reached the disk."""

    offset: int
    size: int
    data_at: int


@dataclass(frozen=True)
class Cut:
    """One crash: after `point` entries, with these pieces of what was not flushed."""

    point: int
    flushed: int
    """So many entries are durable."""
    way: Way
    kept: tuple[Piece, ...]
    dropped: int
    """Writes of which at least a part is missing."""


def flushed_before(entries: Sequence[Entry], point: int) -> int:
    """Return how many of the first `point` entries are durable."""
    return next((index + 1 for index in range(point - 1, -1, -1) if entries[index].flushes), 0)


def cut_at(entries: Sequence[Entry], point: int, seed: int) -> Cut:
    """Return a crash after the first `point` entries."""
    # Not for secrets: the same seed must give the same crash.
    rng = random.Random(f"{seed}/{point}")  # noqa: S311
    flushed, way = flushed_before(entries, point), rng.choice(WAYS)
    pending = [(index, entry) for index, entry in enumerate(entries[flushed:point], flushed) if entry.writes]
    end = rng.randrange(len(pending) + 1)
    kept: list[Piece] = []
    dropped = 0
    for place, (index, entry) in enumerate(pending):
        lasts = entry.lasting and index + 1 < point
        pieces = [_whole(entry)] if lasts else _kept(entry, way, rng, early=place < end)
        dropped += sum(piece.size for piece in pieces) < entry.size
        kept += pieces
    return Cut(point, flushed, way, tuple(kept), dropped)


class Replay:
    """A working file that holds what is durable at a point, going forward through the log only."""

    def __init__(self, base: Path, log: Path, entries: Sequence[Entry], work: Path) -> None:
        """Begin with a copy of the disk as it was before the log.

        Args:
            base: that disk.
            log: the log.
            entries: what is in it.
            work: the working file; it is made.
        """
        self.path, self._entries, self._done = work, entries, 0
        self.changes: dict[int, int] = {}
        """By mebibyte of the disk: which entry was the last that changed it."""
        copy_sparse(base, work)
        self._file = os.open(work, os.O_RDWR)
        self._log = os.open(log, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        os.close(self._file)
        os.close(self._log)

    @contextmanager
    def state(self, cut: Cut) -> Iterator[Path]:
        """Give the disk after a crash, as long as the `with`; crashes come in the order of the log."""
        self._advance(cut.flushed)
        before = [(piece.offset, os.pread(self._file, piece.size, piece.offset)) for piece in cut.kept]
        for piece in cut.kept:
            put(self._file, os.pread(self._log, piece.size, piece.data_at), piece.offset)
        try:
            yield self.path
        finally:
            for offset, content in reversed(before):
                put(self._file, content, offset)

    def version(self, start: int, size: int, cut: Cut) -> tuple[object, ...]:
        """Return what names the content of a stretch of the disk: the same name, the same bytes."""
        last = max((self.changes.get(mib, -1) for mib in range(start >> 20, (start + size - 1 >> 20) + 1)), default=-1)
        touching = (piece for piece in cut.kept if piece.offset < start + size and start < piece.offset + piece.size)
        return (start, last, *touching)

    def _advance(self, flushed: int) -> None:
        if flushed < self._done:
            raise ValueError(f"expected a cut at {self._done} or later, got {flushed}")
        for index in range(self._done, flushed):
            entry = self._entries[index]
            if entry.writes:
                self._copy(entry)
                for mib in range(entry.offset >> 20, (entry.offset + entry.size - 1 >> 20) + 1):
                    self.changes[mib] = index
        self._done = flushed

    def _copy(self, entry: Entry) -> None:
        for at in range(0, entry.size, COPY_BYTES):
            size = min(COPY_BYTES, entry.size - at)
            put(self._file, os.pread(self._log, size, entry.data_at + at), entry.offset + at)


def _kept(entry: Entry, way: Way, rng: random.Random, *, early: bool) -> list[Piece]:
    if way == "nothing" or (way == "beginning" and not early):
        return []
    if way in ("all", "beginning"):
        return [_whole(entry)]
    if way == "some" or rng.random() < KEPT_SHARE:
        return [_whole(entry)] if rng.random() < KEPT_SHARE else []
    step = SECTOR * -(-entry.size // (SECTOR * MAX_TORN))
    places = [at for at in range(0, entry.size, step) if rng.random() < KEPT_SHARE]
    return [Piece(entry.offset + at, min(step, entry.size - at), entry.data_at + at) for at in places]


def _whole(entry: Entry) -> Piece:
    return Piece(entry.offset, entry.size, entry.data_at)
