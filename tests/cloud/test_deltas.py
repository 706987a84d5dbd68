"""Deltas on the server: made once, proven, kept within bounds, and given to whoever asks."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cloud import deltas
from cloud.blobs import BlobStore
from cloud.deltas import DeltaStore
from cloud.errors import UnavailableError
from edge.fetch import download_bundle
from edge.trust import TargetInfo
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.cloud.publishing import digest_of, publish
from tests.cloud.serving import serving
from tests.cloud.world import World

OLD, NEW = bundle_bytes("1.0.0"), bundle_bytes("1.1.0")
PATIENCE_S = 60.0


@pytest.fixture
def http(registry_world: World) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with serving(registry_world.services) as client:
        yield client


def _store(folder: Path, *, max_bytes: int = 10**6) -> DeltaStore:
    blobs = BlobStore(folder / "bundles", max_bytes=10**6)
    for data in (OLD, NEW):
        blobs.put(data, digest=digest_of(data))
    return DeltaStore(folder / "deltas", blobs, max_bytes=max_bytes)


def test_device_gets_a_new_version_of_a_running_control_plane_by_delta(
    registry_world: World, http: httpx.Client, tmp_path: Path
) -> None:
    old = publish(registry_world, OLD)
    ref = BundleRef.model_validate(publish(registry_world, NEW))
    base = tmp_path / f"{old['digest']}.lsb"
    base.write_bytes(OLD)
    assert registry_world.services.registry.deltas.get(old["digest"], ref.digest, wait_s=PATIENCE_S)
    signed = TargetInfo(digest=ref.digest, size_bytes=ref.size_bytes)
    url = f"{str(http.base_url).rstrip('/')}/tuf/targets"
    way = download_bundle(ref, tmp_path / "new.lsb", targets_url=url, trust=lambda _: signed, base=base)
    assert (tmp_path / "new.lsb").read_bytes() == NEW
    assert 0 < way.received_bytes < len(NEW) / 2
    part = http.get(f"/tuf/deltas/{old['digest']}/{ref.digest}", headers={"Range": "bytes=100-"})
    assert (part.status_code, len(part.content)) == (206, way.received_bytes - 100)


def test_only_deltas_between_published_versions_of_one_model_are_made(
    registry_world: World, http: httpx.Client
) -> None:
    old = publish(registry_world, OLD)["digest"]
    other = publish(registry_world, bundle_bytes("1.0.0", name="other"))["digest"]
    for first, second in ((old, other), ("0" * 64, old), (old, "0" * 64)):
        assert http.get(f"/tuf/deltas/{first}/{second}").status_code == 404
    assert http.get(f"/tuf/deltas/{old}/nonsense").status_code == 422
    assert http.get(f"/tuf/deltas/{old}/{old}").status_code == 204


def test_delta_is_made_once_and_that_there_is_none_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, made = _store(tmp_path), []

    def counted(old: Path, new: Path) -> bytes:
        made.append((old.name, new.name))
        return b"" if new.name == digest_of(OLD) else b"a delta"

    monkeypatch.setattr(deltas, "in_child", counted)
    for _ in range(2):
        there = store.get(digest_of(OLD), digest_of(NEW))
        assert there is not None and there.read_bytes() == b"a delta"
        assert store.get(digest_of(NEW), digest_of(OLD)) is None
    assert len(made) == 2
    store.forget(digest_of(NEW))
    assert not [*(tmp_path / "deltas").iterdir()]


def test_whoever_comes_while_one_is_made_is_sent_for_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, go_on = _store(tmp_path), threading.Event()
    monkeypatch.setattr(deltas, "in_child", lambda _old, _new: b"a delta" if go_on.wait(PATIENCE_S) else b"")
    with pytest.raises(UnavailableError, match="is being made"):
        store.get(digest_of(OLD), digest_of(NEW), wait_s=0.01)
    with pytest.raises(UnavailableError, match="another delta"):
        store.get(digest_of(NEW), digest_of(OLD), wait_s=0.01)
    go_on.set()
    assert store.get(digest_of(OLD), digest_of(NEW), wait_s=PATIENCE_S) is not None


def test_kept_deltas_are_bounded_and_the_one_not_asked_for_longest_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path, max_bytes=250)
    monkeypatch.setattr(deltas, "in_child", lambda _old, _new: bytes(100))
    for number in range(3):
        path = tmp_path / "deltas" / f"{number:064}-{number:064}"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + number, 1000 + number))
    assert store.get(digest_of(OLD), digest_of(NEW)) is not None
    kept = sorted(path.name[:64] for path in (tmp_path / "deltas").iterdir())
    assert kept == sorted([f"{2:064}", digest_of(OLD)])


def test_child_that_fails_or_takes_too_long_makes_none(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(OLD)
    assert deltas.in_child(tmp_path / "old", tmp_path / "missing") == b""
    (tmp_path / "new").write_bytes(NEW)
    assert deltas.in_child(tmp_path / "old", tmp_path / "new", deadline_s=0.01) == b""


def test_no_room_for_deltas_is_no_deltas(tmp_path: Path) -> None:
    assert _store(tmp_path, max_bytes=0).get(digest_of(OLD), digest_of(NEW)) is None
