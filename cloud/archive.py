"""Reads the manifest of a bundle that was uploaded, and holds the files against it.

Rules:
- Every bound is checked before memory is taken; nothing is unpacked to disk.
- Its digest has been compared with the signed one before this is called.
"""

import hashlib
import lzma
import zipfile
import zlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cloud.errors import InvalidError
from edge.wire.manifest import MANIFEST_NAME, FileEntry, Manifest
from edge.wire.osimage import OsManifest

AnyManifest = Manifest | OsManifest
MAX_MODEL_BYTES = 256 * 2**20
"""Devices take no larger bundle of a model; an operating system may be as large as the control plane allows."""
MAX_MEMBERS = 64
MAX_MANIFEST_BYTES = 4 * 2**20
READ_BYTES = 2**20
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,  # bzip2's
    NotImplementedError,
    EOFError,
    KeyError,
    ValueError,
    RuntimeError,
)
"""What the standard library raises on archives that are damaged or made to harm."""


def read_manifest(path: Path) -> AnyManifest:
    """Return the manifest of a bundle file whose members are as it lists them, and the root of an operating system too.

    Raises:
        InvalidError: it is not a bundle, and why.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive)
            _check_members(archive, manifest)
        if isinstance(manifest, OsManifest):
            _check_root(path, manifest.root)
        elif path.stat().st_size > MAX_MODEL_BYTES:
            raise InvalidError(f"bundle: expected at most {MAX_MODEL_BYTES} bytes, got {path.stat().st_size}")
    except _DAMAGED as error:
        raise InvalidError(
            f"not a bundle: {error}",
            hint="expected a .lsb file as `lineside-export` or `lineside-flash pack` writes it",
        ) from error
    return manifest


def _manifest(archive: zipfile.ZipFile) -> AnyManifest:
    names = archive.namelist()
    if len(names) > MAX_MEMBERS or len(names) != len(set(names)):
        raise InvalidError(f"bundle: expected at most {MAX_MEMBERS} files with different names, got {len(names)}")
    if MANIFEST_NAME not in names:
        raise InvalidError(f"bundle: {MANIFEST_NAME} is missing")
    if archive.getinfo(MANIFEST_NAME).file_size > MAX_MANIFEST_BYTES:
        raise InvalidError(f"bundle: {MANIFEST_NAME} is larger than {MAX_MANIFEST_BYTES} bytes")
    with archive.open(MANIFEST_NAME) as stream:
        text = stream.read(MAX_MANIFEST_BYTES + 1)
    try:
        if _kind_of(text) == "os":
            return OsManifest.model_validate_json(text)
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidError(f"manifest: {place}: {first['msg']}") from error


def _kind_of(text: bytes) -> object:
    document = TypeAdapter(dict[str, object]).validate_json(text)
    return document.get("kind")


def _check_root(path: Path, root: FileEntry) -> None:
    """Hold what lies before the archive against the manifest."""
    hashed, left = hashlib.sha256(), root.size_bytes
    with path.open("rb") as file:
        while left and (chunk := file.read(min(READ_BYTES, left))):
            left -= len(chunk)
            hashed.update(chunk)
    if left or hashed.hexdigest() != root.digest:
        raise InvalidError("bundle: the root is not the one that the manifest lists")


def _check_members(archive: zipfile.ZipFile, manifest: AnyManifest) -> None:
    extra = sorted(set(archive.namelist()) - set(manifest.files) - {MANIFEST_NAME})
    if extra:
        raise InvalidError(f"bundle: files that the manifest does not list: {', '.join(extra)}")
    for name, entry in manifest.files.items():
        hashed, size_bytes = hashlib.sha256(), 0
        with archive.open(name) as stream:
            while chunk := stream.read(READ_BYTES):
                size_bytes += len(chunk)
                if size_bytes > entry.size_bytes:  # a ZIP bomb stops here
                    break
                hashed.update(chunk)
        if size_bytes != entry.size_bytes or hashed.hexdigest() != entry.digest:
            raise InvalidError(f"bundle: {name} is not the file that the manifest lists")
