"""Reads an operating system out of a slot: the slot's bytes in, a checked manifest and the boot files' bytes out.

Rules:
- Everything is read in pieces: a system is larger than the memory that it may take.
- The digest of the whole is compared with the signed one, as it lies in the slot, before anything parses a byte of it.
"""

import hashlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pydantic import ValidationError

from edge.errors import UpdateError
from edge.wire.base import BundleRef
from edge.wire.manifest import MANIFEST_NAME
from edge.wire.osimage import MAX_OS_BYTES, OsManifest

READ_BYTES = 2**20
MAX_MANIFEST_BYTES = 2**20
_DAMAGED = (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, KeyError, EOFError, OSError)
"""What the standard library raises on archives that are damaged or made to harm."""


def digest_of(device: BinaryIO, size_bytes: int) -> str:
    """Return the SHA-256 of the first bytes of a device, as they lie on the medium and not in the cache.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = device.fileno()
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    device.seek(0)
    hashed, left = hashlib.sha256(), size_bytes
    while left and (chunk := device.read(min(READ_BYTES, left))):
        hashed.update(chunk)
        left -= len(chunk)
    return hashed.hexdigest()


@contextmanager
def opened(device: BinaryIO, ref: BundleRef) -> Iterator["OsImage"]:
    """Open the system at the beginning of a device whose digest has been compared.

    Raises:
        UpdateError: it is not one, or not the one that is named.
    """
    try:
        with zipfile.ZipFile(_Window(device, ref.size_bytes)) as archive:
            manifest = _manifest(archive)
            if (manifest.name, manifest.version) != (ref.name, ref.version):
                raise UpdateError(
                    f"expected {ref.name} {ref.version}, its manifest says {manifest.name} {manifest.version}"
                )
            yield OsImage(archive, manifest)
    except _DAMAGED as error:
        raise UpdateError(
            f"{ref.target_path}: not a system: {error}", hint="expected a file as `lineside-flash pack` writes it"
        ) from error


class OsImage:
    """An operating system in a slot."""

    def __init__(self, archive: zipfile.ZipFile, manifest: OsManifest) -> None:
        self._archive = archive
        self.manifest = manifest

    def member(self, name: str) -> Callable[[int], bytes]:
        """Return what reads kernel or initrd, a piece at a time."""
        return self._archive.open(name).read


class _Window(io.RawIOBase):
    """The first bytes of a device, as a file of that size: a partition is larger than what lies on it."""

    def __init__(self, device: BinaryIO, size_bytes: int) -> None:
        self._device, self._size, self._place = device, size_bytes, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}")
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._device.seek(self._place)
        data = self._device.read(min(len(buffer), max(0, self._size - self._place)))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def _manifest(archive: zipfile.ZipFile) -> OsManifest:
    size = archive.getinfo(MANIFEST_NAME).file_size
    if size > MAX_MANIFEST_BYTES:
        raise UpdateError(f"{MANIFEST_NAME}: expected at most {MAX_MANIFEST_BYTES} bytes, got {size}")
    try:
        manifest = OsManifest.model_validate_json(archive.read(MANIFEST_NAME))
    except ValidationError as error:
        first = error.errors()[0]
        raise UpdateError(f"manifest: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    sizes = {name: archive.getinfo(name).file_size for name in manifest.files}
    wrong = [name for name, size in sizes.items() if size != manifest.files[name].size_bytes]
    if wrong or manifest.root.size_bytes > MAX_OS_BYTES:
        raise UpdateError(f"{', '.join(wrong) or 'root'}: not of the size that the manifest says")
    return manifest
