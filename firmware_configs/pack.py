"""Packs an image into one file that is signed, published and rolled out as a model's bundle is.

Rules:
- The root comes first and whole, then a ZIP archive with manifest, kernel and initrd as they are: what a device writes
  to its slot is the file itself (`edge.wire.osimage`).
- The same image and version give the same bytes: a device that was flashed with an image knows that it has it already.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from edge.wire.base import BundleRef, Version
from edge.wire.manifest import MANIFEST_NAME, FileEntry
from edge.wire.osimage import INITRD, KERNEL, MAX_OS_BYTES, OsManifest, os_name
from firmware_configs.errors import BuildError
from firmware_configs.image.debian import ImageManifest

COPY_BYTES = 2**20
ALIGN_BYTES = 4096
"""Where the archive begins: the kernel reads a squashfs in whole pages."""


def manifest_of(image: ImageManifest, version: Version) -> OsManifest:
    """Return the manifest of an image under a version."""
    files = {name: _entry(image, name) for name in (INITRD, KERNEL)}
    return OsManifest(
        kind="os",
        name=os_name(image.profile),
        version=version,
        created_at=datetime.fromtimestamp(image.epoch, UTC).isoformat().replace("+00:00", "Z"),
        profile=image.profile,
        architecture="arm64" if image.architecture == "arm64" else "amd64",
        root=_entry(image, "root.squashfs"),
        files=files,
        lineage={"recipe": image.recipe},
    )


def pack(image: ImageManifest, folder: Path, version: Version, out: Path) -> BundleRef:
    """Write an image as one file and return what it is called.

    Args:
        image: what `folder` holds.
        folder: the image.
        version: under which it is to be published.
        out: the file.

    Raises:
        BuildError: it is too large, or cannot be written.
    """
    try:
        with out.open("wb") as file:
            for chunk in packed(image, folder, version):
                file.write(chunk)
    except OSError as error:
        raise BuildError(f"{out}: {error.strerror or error}") from error
    return ref_of(image, folder, version)


def ref_of(image: ImageManifest, folder: Path, version: Version) -> BundleRef:
    """Return the name, digest and size that an image has when it is packed, without writing anything.

    Raises:
        BuildError: it is too large.
    """
    hashed, size = hashlib.sha256(), 0
    for chunk in packed(image, folder, version):
        hashed.update(chunk)
        size += len(chunk)
    if size > MAX_OS_BYTES:
        raise BuildError(f"a packed system may have {MAX_OS_BYTES} bytes, this one has {size}")
    name = os_name(image.profile)
    return BundleRef(name=name, version=version, digest=hashed.hexdigest(), size_bytes=size, kind="os")


def packed(image: ImageManifest, folder: Path, version: Version) -> Iterator[bytes]:
    """Give the file's bytes in pieces."""
    size = 0
    with (folder / "root.squashfs").open("rb") as root:
        while chunk := root.read(COPY_BYTES):
            size += len(chunk)
            yield chunk
    yield bytes(-size % ALIGN_BYTES)
    yield from _archive(image, folder, version, size + -size % ALIGN_BYTES)


def _archive(image: ImageManifest, folder: Path, version: Version, begin: int) -> Iterator[bytes]:
    """Give a ZIP archive that stands behind `begin` bytes; its offsets count from the beginning of the file."""
    target = _Pieces(begin)
    when = datetime.fromtimestamp(image.epoch, UTC)
    manifest = manifest_of(image, version).model_dump_json(indent=1).encode()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name in (MANIFEST_NAME, INITRD, KERNEL):
            info = zipfile.ZipInfo(name, when.timetuple()[:6])
            source: BinaryIO = io.BytesIO(manifest) if name == MANIFEST_NAME else (folder / name).open("rb")
            info.file_size = len(manifest) if name == MANIFEST_NAME else image.files[name].size_bytes
            with source, archive.open(info, "w") as member:
                while chunk := source.read(COPY_BYTES):
                    member.write(chunk)
                    yield from target.taken()
    yield from target.taken()


class _Pieces(io.RawIOBase):
    """What an archive is written to: hands on what came, and counts from where it begins. It cannot go back."""

    def __init__(self, begin: int) -> None:
        self._place, self._pieces = begin, [b""]

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._pieces.append(bytes(data))
        self._place += len(data)
        return len(data)

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


def _entry(image: ImageManifest, name: str) -> FileEntry:
    file = image.files[name]
    return FileEntry(digest=file.sha256, size_bytes=file.size_bytes)
