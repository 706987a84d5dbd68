"""Makes deltas between two versions of a model, when they are first asked for, and keeps them for the next device.

Rules:
- A delta is offered only if it is at most half of the whole bundle, and only after it was applied here and gave the
  bundle: what a device gets from an honest server always works.
- It is made in a child process with a deadline, one at a time: looking for what is alike takes seconds of a core, and
  the control plane has messages to store meanwhile. Who cannot wait that long downloads the whole.
- Kept files are bounded; the one that was not asked for longest goes first. That a delta is not worth it is kept too,
  as an empty file.
"""

import logging
import os
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

from cloud.blobs import BlobStore, write_durably
from cloud.errors import UnavailableError
from edge.wire.delta import WORTH, DeltaError, DeltaHeader, Piece, PieceSpec, apply, packed, pieces_of, written

log = logging.getLogger(__name__)

WAIT_S = 8.0
"""A device gives up on a silent server after ten seconds."""
MAKE_S = 120.0
"""Beyond it two versions have too little in common to be worth looking."""
MAX_WAITING = 8
"""Requests that wait for a delta at the same time: others must find a thread."""
MAX_FILES = 10_000
NICENESS = 10


class DeltaStore:
    """A folder of deltas between published bundles."""

    def __init__(self, folder: Path, blobs: BlobStore, *, max_bytes: int) -> None:
        self._folder = folder
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._making: dict[tuple[str, str], threading.Event] = {}
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, old: str, new: str, *, wait_s: float = WAIT_S) -> Path | None:
        """Return the delta from one bundle to another, or None if it is not worth it.

        Raises:
            UnavailableError: it is still being made.
            NotFoundError: one of the bundles is not here.
        """
        if not self._max_bytes or old == new:
            return None
        place = self._folder / f"{old}-{new}"
        if not place.exists():
            self._make(place, self._blobs.path(old), self._blobs.path(new), (old, new), wait_s)
        try:
            os.utime(place)
            return place if place.stat().st_size else None
        except FileNotFoundError:  # made room for another
            return None

    def forget(self, digest: str) -> None:
        """Remove the deltas from and to a bundle that is gone."""
        for path in self._folder.glob(f"*{digest}*"):
            path.unlink(missing_ok=True)

    def _make(self, place: Path, old: Path, new: Path, pair: tuple[str, str], wait_s: float) -> None:
        with self._lock:
            done = self._making.get(pair)
            if done is None:
                if self._making:
                    raise UnavailableError("another delta is being made", hint="download the whole bundle")
                done = self._making[pair] = threading.Event()
                threading.Thread(target=self._work, args=(place, old, new, pair), name="delta", daemon=True).start()
        if not self._waiting.acquire(blocking=False):
            raise UnavailableError("the delta is being made", hint="download the whole bundle")
        try:
            if not done.wait(wait_s):
                raise UnavailableError("the delta is being made", hint="download the whole bundle")
        finally:
            self._waiting.release()

    def _work(self, place: Path, old: Path, new: Path, pair: tuple[str, str]) -> None:
        try:
            made = in_child(old, new)
            self._make_room(len(made))
            write_durably(place, made)
            log.info("delta %s… → %s…: %d bytes of %d", pair[0][:12], pair[1][:12], len(made), new.stat().st_size)
        except OSError as error:
            log.warning("no delta %s… → %s… could be kept: %s", pair[0][:12], pair[1][:12], error)
        finally:
            with self._lock:
                self._making.pop(pair).set()

    def _make_room(self, size_bytes: int) -> None:
        kept = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in self._folder.iterdir())
        total = sum(size for _, size, _ in kept) + size_bytes
        for number, (_, size, path) in enumerate(kept):
            if total <= self._max_bytes and len(kept) - number < MAX_FILES:
                return
            path.unlink(missing_ok=True)
            total -= size


def in_child(old: Path, new: Path, *, deadline_s: float = MAKE_S) -> bytes:
    """Return the delta between two bundle files, made by a child process; nothing if it is not worth it."""
    command = [sys.executable, "-P", "-m", "cloud.deltas", str(old), str(new)]
    try:
        child = subprocess.run(
            command, capture_output=True, timeout=deadline_s, stdin=subprocess.DEVNULL, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired:
        log.info("the delta to %s… took longer than %g s: not worth it", new.name[:12], deadline_s)
        return b""
    if child.returncode != 0:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        log.warning("no delta to %s… could be made: %s", new.name[:12], last[0])
        return b""
    return child.stdout


def make(old: bytes, new: bytes) -> bytes:
    """Return the delta from one bundle to another, proven; nothing if it is not worth it.

    Args:
        old, new: bytes of the two archives.
    """
    try:
        before, after = pieces_of(old), pieces_of(new)
    except DeltaError as error:
        log.info("no delta: %s", error)
        return b""
    delta = _delta(old, new, before, after)
    if len(delta) > WORTH * len(new):
        return b""
    made: list[bytes] = []
    apply(old, delta, made.append, digest=_digest(new), size_bytes=len(new))
    return delta


def main() -> int:
    """Write the delta between two files to standard output."""
    os.nice(NICENESS)
    old, new = (Path(name).read_bytes() for name in sys.argv[1:3])
    sys.stdout.buffer.write(make(old, new))
    return 0


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _environment() -> dict[str, str]:
    # `-P` keeps the working directory off the child's path; packages that this process finds, the child finds too.
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _delta(old: bytes, new: bytes, before: list[Piece], after: list[Piece]) -> bytes:
    from bsdiff4 import core

    places = {piece.packed: number for number, piece in reversed([*enumerate(before)])}
    specs, wanted, same = [], [], set()
    for piece in after:
        number = places.get(piece.packed)
        if number is not None and piece.packed:
            same.add(number)
            specs.append(PieceSpec(how="same", size_bytes=len(piece.content), of=number))
            continue
        again = piece.how == "bzip2" and packed(piece.content) == piece.packed
        content = piece.content if again else piece.packed
        specs.append(PieceSpec(how="bzip2" if again else "raw", size_bytes=len(content)))
        wanted.append(content)
    source = [number for number in range(len(before)) if number not in same]
    control, diff, extra = core.diff(b"".join(before[n].content for n in source), b"".join(wanted))
    header = DeltaHeader(old=_digest(old), new=_digest(new), size_bytes=len(new), pieces=specs, source=source)
    return written(header, _records(control), diff, extra)


def _records(control: bytes) -> list[tuple[int, int, int]]:
    """Return bsdiff's control block as records, those that add nothing joined to the one before."""
    from bsdiff4 import core

    numbers = [core.decode_int64(control[at : at + 8]) for at in range(0, len(control), 8)]
    records: list[tuple[int, int, int]] = []
    for add, copy, move in zip(*[iter(numbers)] * 3, strict=True):
        if add + copy == 0 and records:
            before = records[-1]
            records[-1] = (before[0], before[1], before[2] + move)
        else:
            records.append((add, copy, move))
    return records


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
