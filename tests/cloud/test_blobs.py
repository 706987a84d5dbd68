"""Files by digest: whole and checked, or not there."""

import hashlib
import os
from pathlib import Path

import pytest

from cloud.blobs import BlobStore, write_durably
from cloud.errors import InvalidError, NotFoundError, TooLargeError, UnavailableError

DATA = os.urandom(100_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_bytes_are_kept_once_under_their_digest(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, max_bytes=10**6)
    assert blobs.put(DATA, digest=DIGEST)
    assert not blobs.put(DATA, digest=DIGEST)
    assert blobs.path(DIGEST).read_bytes() == DATA
    assert len(_files(tmp_path)) == 1
    assert blobs.total_bytes == len(DATA)


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", b"other"])
def test_other_bytes_than_the_digest_says_leave_nothing_behind(tmp_path: Path, data: bytes) -> None:
    blobs = BlobStore(tmp_path, max_bytes=10**6)
    with pytest.raises(InvalidError, match="expected bytes with digest"):
        blobs.put(data, digest=DIGEST)
    assert (_files(tmp_path), blobs.has(DIGEST)) == ([], False)


@pytest.mark.parametrize(
    "digest",
    ["", "x", DIGEST.upper(), "../" + DIGEST, DIGEST + "\n", DIGEST[:-1]],
    ids=["empty", "letter", "capitals", "path", "line end", "cut short"],
)
def test_name_that_is_no_digest_reaches_no_file(tmp_path: Path, digest: str) -> None:
    blobs = BlobStore(tmp_path / "blobs", max_bytes=10**6)
    with pytest.raises(InvalidError):
        blobs.put(DATA, digest=digest)
    with pytest.raises(NotFoundError):
        blobs.path(digest)
    blobs.remove(digest)
    assert _files(tmp_path) == []


def test_file_above_the_limit_is_refused_and_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, max_bytes=len(DATA) - 1)
    with pytest.raises(TooLargeError):
        blobs.put(DATA, digest=DIGEST)
    assert _files(tmp_path) == []


def test_full_folder_takes_no_more_until_something_is_removed(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, max_bytes=10**6, max_total_bytes=150_000)
    blobs.put(DATA, digest=DIGEST)
    more = os.urandom(60_000)
    with pytest.raises(UnavailableError, match="full"):
        blobs.put(more, digest=hashlib.sha256(more).hexdigest())
    blobs.remove(DIGEST)
    assert blobs.put(more, digest=hashlib.sha256(more).hexdigest())


def test_disk_that_takes_nothing_is_a_clear_error(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, max_bytes=10**6)
    (tmp_path / DIGEST[:2]).write_bytes(b"a file where the folder should be")
    with pytest.raises(UnavailableError, match="disk"):
        blobs.put(DATA, digest=DIGEST)


def test_half_written_file_of_a_killed_process_is_removed_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / DIGEST[:2]
    folder.mkdir()
    (folder / ".part-1234").write_bytes(DATA[:10])
    blobs = BlobStore(tmp_path, max_bytes=10**6)
    assert _files(tmp_path) == []
    assert not blobs.has(DIGEST)


def test_file_is_replaced_whole_with_its_rights(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_durably(path, b"first", mode=0o600)
    write_durably(path, b"second", mode=0o600)
    assert (path.read_bytes(), path.stat().st_mode & 0o777, len(_files(tmp_path))) == (b"second", 0o600, 1)
