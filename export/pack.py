"""Writes a bundle: one archive with a manifest and the files it lists.

Rules:
- The same manifest and files give the same bytes on every machine: members sorted, times fixed, compressed by bzip2,
  whose output has been the same for many years (zlib's differs between versions), where that saves a tenth.
- The archive is written beside its place and moved there whole; what is read back must be what was meant.
"""

import bz2
import io
import zipfile
from pathlib import Path
from typing import Any

from edge import bundle
from edge.wire.base import BundleRef
from edge.wire.manifest import MANIFEST_NAME, FileEntry, Manifest

_FIXED_TIME = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o644 << 16
_LEAST_BYTES = 2**14
"""Smaller members are stored: what is saved is not worth a device's time."""
_WORTH = 0.9


def file_entries(files: dict[str, bytes]) -> dict[str, FileEntry]:
    """Return what the manifest says about each file."""
    return {
        name: FileEntry(digest=bundle.digest_of(content), size_bytes=len(content)) for name, content in files.items()
    }


def pack(manifest: Manifest, files: dict[str, bytes]) -> bytes:
    """Return the archive's bytes.

    Raises:
        UpdateError: the files are not those that the manifest lists.
    """
    text = manifest.model_dump_json(indent=1, exclude_none=True).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted({**files, MANIFEST_NAME: text}.items()):
            archive.writestr(_member(name, content), content)
    data = buffer.getvalue()
    bundle.parse(data)
    return data


def write(manifest: Manifest, files: dict[str, bytes], path: Path) -> BundleRef:
    """Write the archive and return its reference."""
    data = pack(manifest, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_bytes(data)
    beside.replace(path)
    return bundle.load(path).ref


def read(path: Path) -> bundle.Bundle:
    """Return a bundle that was written, checked.

    Raises:
        ModelError: there is no such file.
        UpdateError: it is not a bundle.
    """
    return bundle.load(path)


def plain(opened: bundle.Bundle) -> dict[str, Any]:
    """Return what people want to know of a bundle: its reference and its manifest, as plain values."""
    return {"ref": opened.ref.model_dump(), "manifest": opened.manifest.model_dump(exclude_none=True)}


def _member(name: str, content: bytes) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=_FIXED_TIME)
    smaller = len(content) >= _LEAST_BYTES and len(bz2.compress(content)) <= _WORTH * len(content)
    info.compress_type = zipfile.ZIP_BZIP2 if smaller else zipfile.ZIP_STORED
    info.external_attr = _PLAIN_FILE
    info.create_system = 3
    return info
