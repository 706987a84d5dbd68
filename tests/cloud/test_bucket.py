"""Inputs and bundles in a real S3-compatible store: whole and checked, the same for all copies, gone when erased."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.blobs import BlobStore
from cloud.bucket import Bucket
from cloud.errors import ConfigError, InvalidError, NotFoundError, UnavailableError
from tests.cloud.seaweed import BUCKET, Seaweed

DATA = os.urandom(100_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[Seaweed]:
    """One server for the module."""
    with Seaweed() as made:
        yield made


@pytest.fixture
def bucket(server: Seaweed, request: pytest.FixtureRequest) -> Bucket:
    """A place of the test's own."""
    return Bucket(f"s3://{BUCKET}/{request.node.name}", server.options, "inputs")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_one_copy_keeps_another_has_and_erasing_it_leaves_nothing_anywhere(tmp_path: Path, bucket: Bucket) -> None:
    first, second = (BlobStore(tmp_path / name, max_bytes=10**6, bucket=bucket) for name in ("a", "b"))
    assert first.put(DATA, digest=DIGEST)
    assert not second.put(DATA, digest=DIGEST)
    path, give_back = second.lend(DIGEST)
    assert path.read_bytes() == DATA
    give_back()
    assert _files(tmp_path) == []
    second.remove(DIGEST)
    assert not first.has(DIGEST)
    with pytest.raises(NotFoundError):
        first.lend(DIGEST)


def test_other_bytes_than_the_digest_says_never_reach_the_bucket(tmp_path: Path, bucket: Bucket) -> None:
    blobs = BlobStore(tmp_path, max_bytes=10**6, bucket=bucket)
    with pytest.raises(InvalidError, match="expected bytes with digest"):
        blobs.put(DATA[:-1], digest=DIGEST)
    assert (_files(tmp_path), blobs.has(DIGEST)) == ([], False)


def test_bundle_is_fetched_once_and_kept_at_each_copy(tmp_path: Path, bucket: Bucket) -> None:
    first, second = (
        BlobStore(tmp_path / name, max_bytes=10**6, bucket=bucket, keeps_copies=True) for name in ("a", "b")
    )
    first.put(DATA, digest=DIGEST)
    place = second.path(DIGEST)
    assert place.read_bytes() == DATA
    bucket.remove(DIGEST)
    assert second.path(DIGEST) == place


def test_object_that_was_altered_is_not_given_to_anybody(tmp_path: Path, bucket: Bucket) -> None:
    (tmp_path / "other").write_bytes(b"other")
    bucket.put(DIGEST, tmp_path / "other")
    blobs = BlobStore(tmp_path / "blobs", max_bytes=10**6, bucket=bucket)
    with pytest.raises(UnavailableError, match="something else"):
        blobs.lend(DIGEST)
    assert _files(tmp_path / "blobs") == []


def test_store_that_does_not_know_us_is_unavailable_and_a_wrong_url_is_an_error_of_the_config(server: Seaweed) -> None:
    missing = Bucket("s3://no-such-bucket/x", server.options, "inputs")
    with pytest.raises(UnavailableError, match="store of blobs"):
        missing.put(DIGEST, Path(__file__))
    with pytest.raises(ConfigError, match="expected s3://"):
        Bucket("https://x", {}, "inputs")
    with pytest.raises(ConfigError, match="nonsense"):
        Bucket("s3://x/y", {"nonsense": "1"}, "inputs")
