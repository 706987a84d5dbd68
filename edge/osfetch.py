"""Downloads an operating system straight into its slot: proven by the same signature as a bundle, resumable, in pieces.

Rules:
- There is no copy beside it: the slot's bytes are the download's bytes. What was synced to it is noted, so that a
  download goes on after a cut, a kill or a restart; what lies beyond the note is fetched again.
- The digest over everything is taken from the slot itself. If it is wrong with what an earlier attempt had left,
  everything is fetched once more before the system is refused.
"""

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from edge.errors import StoreError, UpdateError
from edge.fetch import SILENCE_S, Download, FetchLimits, agree
from edge.files import read_checked_json, write_checked_json
from edge.http import connection_pool
from edge.osimage import digest_of
from edge.trust import TargetInfo
from edge.wire.base import BundleRef

SYNC_BYTES = 8 * 2**20
"""Noted and synced after so many: what a cut makes one fetch again."""


def download_system(
    ref: BundleRef,
    device: BinaryIO,
    progress: Path,
    *,
    targets_url: str,
    trust: Callable[[str], TargetInfo],
    ca: Path | None = None,
    limits: FetchLimits | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Bring a slot to hold the signed system, proven as it lies there.

    Args:
        ref: the system that is wanted.
        device: the slot, open for writing and without a buffer.
        progress: a file for how much of which system is there.
        targets_url: where bundles are served.
        trust: what the signed metadata says of a target path.
        ca: what to verify the server by (PEM), instead of what the system trusts.
        limits: when to give up.
        stop: set to end early.

    Raises:
        UpdateError: it is not the signed system, or does not fit.
        LinkError: it could not be fetched (completely); another call goes on with it.
        StoreError: the slot fails.
    """
    agree(ref, trust(ref.target_path))
    part = SlotPart(device, progress, ref)
    url = f"{targets_url.rstrip('/')}/{ref.digest}.{ref.target_path}"
    pool = connection_pool(read_s=SILENCE_S, ca=ca)
    try:
        part.check_room()
        for left_over in (part.tell() > 0, False):
            Download(ref, part, url, pool, limits or FetchLimits(), stop or threading.Event()).run()
            got = digest_of(device, ref.size_bytes)
            if got == ref.digest:
                return
            part.truncate(0)
            if not left_over:
                hint = "something altered it on the way or on the server, or the medium is worn out"
                raise UpdateError(f"{ref.target_path}: expected SHA-256 {ref.digest}, got {got}", hint=hint)
    except OSError as error:
        raise StoreError(
            f"the slot cannot be written: {error.strerror or error}", hint="the medium may fail"
        ) from error


class SlotPart:
    """A slot that a download goes on in; looks to it like a file that is appended to."""

    def __init__(self, device: BinaryIO, progress: Path, ref: BundleRef) -> None:
        self._device = device
        self._progress = progress
        self._ref = ref
        self._place = self._synced = self._noted()

    def __enter__(self) -> "SlotPart":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def open(self) -> "SlotPart":
        """Return itself: it is open."""
        return self

    def check_room(self) -> None:
        """Make sure that it fits, in the slot and in what may be written.

        Raises:
            UpdateError: it does not.
        """
        room = self._device.seek(0, io.SEEK_END)
        if self._ref.size_bytes > room:
            raise UpdateError(f"{self._ref.target_path}: {self._ref.size_bytes} bytes, the slot has {room}")

    def check_space(self, _more_bytes: int, _limits: FetchLimits) -> None:
        """Nothing: a slot is as large as it is, and `check_room` has looked."""

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def truncate(self, size: int) -> int:
        """Forget what lies beyond; the slot itself is not touched."""
        self._place = min(self._place, size)
        self._note(min(self._synced, size))
        return size

    def write(self, data: bytes) -> int:
        self._device.seek(self._place)
        left = memoryview(data)
        while left:
            left = left[self._device.write(left) :]
        self._place += len(data)
        if self._place - self._synced >= SYNC_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Sync what was written, then note it."""
        if self._place != self._synced:
            os.fdatasync(self._device.fileno())
            self._note(self._place)

    def fileno(self) -> int:
        return self._device.fileno()

    def _noted(self) -> int:
        """Return how much of this system the slot holds for certain."""
        try:
            found = read_checked_json(self._progress)
        except StoreError:
            return 0
        mine = isinstance(found, dict) and found.get("digest") == self._ref.digest
        return min(int(found["bytes"]), self._ref.size_bytes) if mine and found else 0

    def _note(self, place: int) -> None:
        write_checked_json(self._progress, {"digest": self._ref.digest, "bytes": place})
        self._synced = place
