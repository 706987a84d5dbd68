"""Keeps inputs and bundles as files named by their SHA-256.

Rules:
- A file appears under its digest only whole and checked: written aside, flushed to disk, renamed.
- The same bytes are kept once; putting them again changes nothing.
- With a bucket behind it, what is kept is in the bucket; the folder holds copies at most (of bundles; never of inputs,
  so that erasing one erases it everywhere), and the bucket bounds its own size.
"""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from cloud.bucket import Bucket
from cloud.errors import InvalidError, NotFoundError, TooLargeError, UnavailableError

DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """A folder of content-addressed files."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        max_total_bytes: int | None = None,
        bucket: Bucket | None = None,
        keeps_copies: bool = False,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.bucket = bucket
        self.keeps_copies = keeps_copies or bucket is None
        self._max_total_bytes = max_total_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*/.part-*"):  # of a process that was killed while writing
            leftover.unlink(missing_ok=True)
        self.total_bytes = sum(file.stat().st_size for file in folder.glob("??/*"))
        """Size of all files together."""

    def has(self, digest: str) -> bool:
        """Return whether the file is here."""
        if DIGEST_PATTERN.fullmatch(digest) is None:
            return False
        return self._place(digest).exists() or (self.bucket is not None and self.bucket.has(digest))

    def path(self, digest: str) -> Path:
        """Return where the file is, for good; only of stores that keep copies.

        Raises:
            NotFoundError: it is not here.
        """
        assert self.keeps_copies
        if DIGEST_PATTERN.fullmatch(digest) and not self._place(digest).exists() and self.bucket is not None:
            fetched = self._fetch(digest)
            fetched.replace(self._place(digest))
        if DIGEST_PATTERN.fullmatch(digest) is None or not self._place(digest).exists():
            raise NotFoundError(f"nothing with digest {digest[:12]}… is here")
        return self._place(digest)

    def lend(self, digest: str) -> tuple[Path, Callable[[], None]]:
        """Return where the file is for now, and what to call when it has been read.

        Raises:
            NotFoundError: it is not here.
        """
        if self.bucket is None or self.keeps_copies:
            return self.path(digest), lambda: None
        if DIGEST_PATTERN.fullmatch(digest) is None:
            raise NotFoundError(f"nothing with digest {digest[:12]}… is here")
        fetched = self._fetch(digest)
        return fetched, lambda: fetched.unlink(missing_ok=True)

    def put(self, data: bytes, *, digest: str) -> bool:
        """Keep bytes under their digest; return whether they were new.

        Raises:
            InvalidError: the bytes have another digest.
            TooLargeError: they are more than `max_bytes`.
            UnavailableError: the disk does not take them.
        """
        writer = BlobWriter(self, digest)
        try:
            writer.write(data)
            return writer.finish()
        finally:
            writer.discard()

    async def put_stream(self, chunks: AsyncIterator[bytes], *, digest: str) -> tuple[bool, int]:
        """Keep a stream of bytes under their digest; return whether they were new, and their number.

        Raises: as `put`.
        """
        writer = BlobWriter(self, digest)
        try:
            async for chunk in chunks:
                writer.write(chunk)
            return await asyncio.to_thread(writer.finish), writer.size_bytes  # it waits for the disk
        finally:
            writer.discard()

    def remove(self, digest: str) -> None:
        """Remove a file that turned out to be of no use; nothing happens if it is not here."""
        if DIGEST_PATTERN.fullmatch(digest) is None:
            return
        if self.bucket is not None:
            self.bucket.remove(digest)
        place = self._place(digest)
        if place.exists():
            self.total_bytes -= place.stat().st_size
            place.unlink(missing_ok=True)
            sync_folder(place.parent)

    def files(self) -> Iterator[tuple[str, int, float]]:
        """Give digest, size and time of the last change (s) of every file."""
        for path in self.folder.glob("??/*"):
            if DIGEST_PATTERN.fullmatch(path.name):
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                yield path.name, found.st_size, found.st_mtime

    def room_for(self, size_bytes: int) -> bool:
        """Return whether so many more bytes fit under the bound."""
        return (
            self.bucket is not None
            or self._max_total_bytes is None
            or self.total_bytes + size_bytes <= self._max_total_bytes
        )

    def _fetch(self, digest: str) -> Path:
        assert self.bucket is not None
        part = self._place(digest).with_name(f".part-{secrets.token_hex(8)}")
        part.parent.mkdir(parents=True, exist_ok=True)
        if not self.bucket.fetch(digest, part):
            raise NotFoundError(f"nothing with digest {digest[:12]}… is here")
        return part

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest


class BlobWriter:
    """One file on its way in."""

    def __init__(self, store: BlobStore, digest: str) -> None:
        if DIGEST_PATTERN.fullmatch(digest) is None:
            raise InvalidError(f"digest: expected 64 lower-case hexadecimal digits, got {digest[:80]!r}")
        self._store = store
        self._digest = digest
        self._hash = hashlib.sha256()
        self._final = store.folder / digest[:2] / digest
        self._part = self._final.with_name(f".part-{secrets.token_hex(8)}")
        self._descriptor: int | None = None
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self._store.max_bytes:
            raise TooLargeError(f"expected at most {self._store.max_bytes} bytes, got more")
        if not self._store.room_for(self.size_bytes):
            raise UnavailableError(
                "the folder of inputs is full", hint="raise limits.inputs_disk_mb or remove old ones"
            )
        self._hash.update(chunk)
        try:
            view = memoryview(chunk)
            while view:
                view = view[os.write(self._open(), view) :]
        except OSError as error:
            raise UnavailableError(f"the disk does not take the file: {error.strerror}") from error

    def finish(self) -> bool:
        """Check the digest and put the file in its place; return whether it was new."""
        if self._hash.hexdigest() != self._digest:
            raise InvalidError(
                f"expected bytes with digest {self._digest[:12]}…, got {self._hash.hexdigest()[:12]}…",
                hint="they were cut short or altered on the way; send them again",
            )
        if self._store.has(self._digest):
            return False
        if self._store.bucket is not None:
            self._open()
            self._store.bucket.put(self._digest, self._part)
            if not self._store.keeps_copies:
                return True
        try:
            os.fsync(self._open())
            self._part.replace(self._final)
            sync_folder(self._final.parent)
        except OSError as error:
            raise UnavailableError(f"the disk does not take the file: {error.strerror}") from error
        self._store.total_bytes += self.size_bytes
        return True

    def discard(self) -> None:
        """Remove what is left of an unfinished file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._part.unlink(missing_ok=True)

    def _open(self) -> int:
        if self._descriptor is None:
            self._part.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        return self._descriptor


def sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace a file whole: written aside, flushed, renamed, folder flushed."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    sync_folder(path.parent)
