"""Files that are whole or absent, whatever moment the power is cut at.

Rules:
- New content is written beside the old, fsynced, renamed over it, and the directory is fsynced: when a write
  has returned, the new content survives a power cut; before that, the old content does.
- One writer per path: the temporary file's name is fixed, so that a killed write leaves at most one behind.
- Checked JSON carries its own SHA-256, so that a file damaged in place is noticed and never believed.
"""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from edge.errors import StoreError

MAX_JSON_BYTES = 4 * 1024 * 1024
"""Files of state are a few kilobytes; anything larger is not one of ours and is not read into memory."""


_ZEROS_BYTES = 2**20
"""Written at once when a file is erased."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path` with permissions `mode`, durably and all at once.

    Raises:
        StoreError: the disk does not take it; what was at `path` before is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write_synced(temporary, data, mode)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint=_hint(error, path)) from error


def make_directory(path: Path) -> None:
    """Make a folder, and those above it, such that no power cut takes them back with what is put into them.

    Raises:
        OSError: one cannot be made.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def sync_directory(path: Path) -> None:
    """Make names created, renamed or removed in a directory survive a power cut.

    Raises:
        OSError: the directory cannot be opened or synced.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def erase_file(path: Path) -> None:
    """Overwrite a file with zeros and remove it.

    Raises:
        StoreError: the disk does not allow it.
    """
    try:
        with path.open("r+b") as file:
            left = path.stat().st_size
            while left > 0:
                left -= file.write(bytes(min(left, _ZEROS_BYTES)))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise StoreError(f"cannot erase {path}: {error.strerror or error}", hint=_hint(error, path)) from error


def write_checked_json(path: Path, value: Any, *, mode: int = 0o644) -> None:
    """Write a JSON value together with its SHA-256.

    Raises:
        StoreError: the disk does not take it.
    """
    text = _canonical(value)
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_atomic(path, f'{{"sha256":"{digest}",\n"value":{text}}}\n'.encode(), mode=mode)


def read_checked_json(path: Path) -> Any | None:
    """Return the value that `write_checked_json` wrote, or None if there is no file.

    Raises:
        StoreError: the file is damaged or cannot be read (`retry` is False).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", retry=False) from error
    return _checked_value(path, data)


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _checked_value(path: Path, data: bytes) -> Any:
    try:
        document = json.loads(data) if len(data) <= MAX_JSON_BYTES else None
        value, expected = document["value"], document["sha256"]  # type: ignore[index]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, f"{len(data)} bytes that are not a checked JSON document") from error
    got = hashlib.sha256(_canonical(value).encode()).hexdigest()
    if got != expected:
        raise _damaged(path, f"content with SHA-256 {got}, where it says {expected}")
    return value


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=False)


def _damaged(path: Path, got: str) -> StoreError:
    return StoreError(
        f"{path} is damaged: got {got}",
        hint="it was changed by hand or by a failing disk; remove it to begin afresh",
        retry=False,
    )


def _hint(error: OSError, path: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"free space on the disk that holds {path.parent}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"let the user of this process write to {path.parent}"
    return ""
