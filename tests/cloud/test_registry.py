"""Bundles in: signed, whole and new, or refused with the reason. Bundles out: by a real TUF client."""

import copy
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tuf.api.exceptions import DownloadHTTPError, ExpiredMetadataError
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater
from tuf.ngclient.fetcher import FetcherInterface

from cloud import keys, tables
from cloud.errors import CloudError, ConfigError, ConflictError, InvalidError, RefusedError, UnavailableError
from cloud.server import build
from edge.wire.messages import Desired
from tests.bundles import archive, bundle_bytes
from tests.cloud.publishing import digest_of, publish, signed
from tests.cloud.serving import serving
from tests.cloud.world import World, now_of


class AppFetcher(FetcherInterface):
    """Fetches from the real application in this process."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def _fetch(self, url: str) -> Iterator[bytes]:
        answer = self._client.get(url)
        if answer.status_code != 200:
            raise DownloadHTTPError(answer.text, answer.status_code)
        yield answer.content


@pytest.fixture
def http(registry_world: World) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with serving(registry_world.services) as client:
        yield client


def _updater(world: World, folder: Path, client: httpx.Client) -> Updater:
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    return Updater(
        str(folder),
        "/tuf/metadata/",
        str(folder / "targets"),
        "/tuf/targets/",
        fetcher=AppFetcher(client),
        bootstrap=(world.folder / "keys" / "root.json").read_bytes(),
    )


def _refused(world: World, data: bytes, targets: bytes, error: type[CloudError], reason: str) -> None:
    before = world.services.registry.repository.targets_bytes()
    with pytest.raises(error, match=reason):
        world.services.registry.publish(io.BytesIO(data), targets, who="anna")
    assert world.services.registry.repository.targets_bytes() == before
    assert world.services.registry.bundles() == []
    refusals = [row.why for row in world.rows(tables.audit_log) if row.what == "bundle_refused"]
    assert len(refusals) == 1


def test_published_bundle_is_fetched_by_a_tuf_client_that_knows_only_the_root(
    registry_world: World, tmp_path: Path, http: httpx.Client
) -> None:
    data = bundle_bytes("1.0.0")
    publish(registry_world, data)
    updater = _updater(registry_world, tmp_path / "device", http)
    _at(registry_world, updater)
    updater.refresh()
    target = updater.get_targetinfo("brightness-1.0.0.lsb")
    assert target is not None
    assert Path(updater.download_target(target)).read_bytes() == data


def test_new_bundle_is_seen_by_a_client_that_has_been_here_before(
    registry_world: World, tmp_path: Path, http: httpx.Client
) -> None:
    for version in ("1.0.0", "1.1.0"):
        publish(registry_world, bundle_bytes(version))
        updater = _updater(registry_world, tmp_path / "device", http)
        _at(registry_world, updater)
        updater.refresh()
        assert updater.get_targetinfo(f"brightness-{version}.lsb") is not None


def test_frozen_repository_runs_out_and_a_refreshed_one_does_not(
    registry_world: World, tmp_path: Path, http: httpx.Client
) -> None:
    registry_world.clock.forward(25 * 3600)
    updater = _updater(registry_world, tmp_path / "device", http)
    _at(registry_world, updater)
    with pytest.raises(ExpiredMetadataError):
        updater.refresh()
    assert registry_world.services.registry.repository.refresh()
    assert not registry_world.services.registry.repository.refresh()
    updater = _updater(registry_world, tmp_path / "device", http)
    _at(registry_world, updater)
    updater.refresh()


def test_repository_stays_valid_through_a_year_of_looking_every_hour(registry_world: World) -> None:
    repository = registry_world.services.registry.repository
    for _ in range(40):
        registry_world.clock.forward(9 * 3600)
        repository.refresh()
        for name in ("timestamp.json", f"{repository._snapshot().signed.version}.snapshot.json"):
            metadata: Metadata[Any] = Metadata.from_bytes(repository.metadata_path(name).read_bytes())
            assert not metadata.signed.is_expired(now_of(registry_world.clock))


def test_same_name_and_version_with_other_content_is_refused(registry_world: World) -> None:
    publish(registry_world, bundle_bytes("1.0.0"))
    with pytest.raises(ConflictError, match="published already"):
        signed(registry_world, bundle_bytes("1.0.0", note="other"))


def test_list_that_changes_a_published_bundle_is_refused_by_the_server_too(registry_world: World) -> None:
    old = signed(registry_world, bundle_bytes("1.0.0"))
    publish(registry_world, bundle_bytes("1.0.0", note="the real one"))
    targets = json.loads(signed(registry_world, bundle_bytes("1.1.0"), path="brightness-1.1.0.lsb"))
    targets["signed"]["targets"].update(json.loads(old)["signed"]["targets"])
    with pytest.raises(ConflictError, match=r"brightness-1\.0\.0\.lsb is published already"):
        registry_world.services.registry.repository.check(_resigned(registry_world, targets))


def test_list_that_drops_a_published_bundle_is_refused(registry_world: World) -> None:
    publish(registry_world, bundle_bytes("1.0.0"))
    targets = json.loads(signed(registry_world, bundle_bytes("1.1.0"), path="brightness-1.1.0.lsb"))
    del targets["signed"]["targets"]["brightness-1.0.0.lsb"]
    with pytest.raises(ConflictError, match="is missing"):
        registry_world.services.registry.repository.check(_resigned(registry_world, targets))


def test_two_who_publish_at_once_do_not_undo_each_other(registry_world: World) -> None:
    first, second = bundle_bytes("1.0.0"), bundle_bytes("1.1.0")
    late = signed(registry_world, second, path="brightness-1.1.0.lsb")
    publish(registry_world, first)
    with pytest.raises(ConflictError, match="expected version 3, got 2"):
        registry_world.services.registry.publish(io.BytesIO(second), late, who="ben")
    publish(registry_world, second)
    assert [view.ref.version for view in registry_world.services.registry.bundles()] == ["1.1.0", "1.0.0"]


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_bundle_that_was_cut_short_is_refused(registry_world: World, keep: int) -> None:
    data = bundle_bytes()
    _refused(registry_world, data[:keep], signed(registry_world, data), InvalidError, "expected bytes with digest")


def test_bundle_with_one_bit_altered_is_refused(registry_world: World) -> None:
    data = bytearray(bundle_bytes())
    targets = signed(registry_world, bytes(data))
    data[len(data) // 2] ^= 1
    _refused(registry_world, bytes(data), targets, InvalidError, "expected bytes with digest")


def test_list_signed_by_another_key_is_refused(registry_world: World, tmp_path: Path) -> None:
    keys.create(tmp_path / "foreign", now=now_of(registry_world.clock))
    data = bundle_bytes()
    targets = _resigned(registry_world, json.loads(signed(registry_world, data)), tmp_path / "foreign" / "release.pem")
    _refused(registry_world, data, targets, RefusedError, "not signed with the release key")


def test_list_signed_by_a_key_of_the_server_is_refused(registry_world: World) -> None:
    document = json.loads(signed(registry_world, bundle_bytes()))
    for name in ("timestamp.pem", "snapshot.pem"):
        targets = _resigned(registry_world, document, registry_world.config.keys_dir / name)
        with pytest.raises(RefusedError, match="not signed with the release key"):
            registry_world.services.registry.repository.check(targets)


def test_list_that_a_taken_over_server_has_made_up_is_not_signed(registry_world: World) -> None:
    document = json.loads(registry_world.services.registry.repository.targets_bytes())
    document["signed"]["targets"]["evil-1.0.0.lsb"] = {"length": 1, "hashes": {"sha256": "ab" * 32}}
    stolen = registry_world.config.keys_dir / "snapshot.pem"
    for made_up in (json.dumps(document).encode(), _resigned(registry_world, document, stolen), b"{}", b"nonsense"):
        with pytest.raises(RefusedError, match="not signed with the release key"):
            keys.with_bundle(
                made_up,
                path="brightness-1.0.0.lsb",
                digest="ab" * 32,
                size_bytes=1,
                release_key=registry_world.release_key,
                now=now_of(registry_world.clock),
            )


def test_list_altered_after_signing_is_refused(registry_world: World) -> None:
    data = bundle_bytes()
    targets = signed(registry_world, data).replace(b'"length": ', b'"length": 1')
    _refused(registry_world, data, targets, RefusedError, "not signed with the release key")


@pytest.mark.parametrize("targets", [b"", b"{}", b"nonsense", b'{"signed": {}, "signatures": []}', b"[" * 10_000])
def test_list_that_is_none_is_refused(registry_world: World, targets: bytes) -> None:
    _refused(registry_world, bundle_bytes(), targets, InvalidError, "targets:")


def test_metadata_of_another_role_is_refused(registry_world: World) -> None:
    root = (registry_world.config.keys_dir / "root.json").read_bytes()
    _refused(registry_world, bundle_bytes(), root, InvalidError, "expected a list of bundles, got root")


def test_list_that_has_run_out_is_refused(registry_world: World) -> None:
    data = bundle_bytes()
    targets = signed(registry_world, data)
    registry_world.clock.forward(366 * 24 * 3600)
    _refused(registry_world, data, targets, InvalidError, "ran out")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"this is no archive", "not a bundle"),
        (archive({"a": b"b"}), "manifest.json is missing"),
        (archive({"manifest.json": b"{}"}), "manifest: "),
        (bundle_bytes(labels=["good", "good"]), "labels must differ"),
        (bundle_bytes("2.0.0"), "its manifest says brightness 2.0.0"),
        (bundle_bytes(files={}), "files are named but not listed"),
    ],
)
def test_file_that_is_no_bundle_is_refused_though_signed(registry_world: World, data: bytes, reason: str) -> None:
    _refused(registry_world, data, signed(registry_world, data), InvalidError, reason)
    assert not registry_world.services.registry.blobs.has(digest_of(data))


def test_publishing_without_keys_says_what_to_do(world: World) -> None:
    assert world.services.registry.open() is False
    with pytest.raises(UnavailableError, match="no keys yet") as caught:
        world.services.registry.repository.targets_bytes()
    assert "keys init" in caught.value.hint


def test_other_keys_than_those_devices_know_are_refused_at_start(registry_world: World, tmp_path: Path) -> None:
    foreign = keys.create(tmp_path / "foreign", now=now_of(registry_world.clock))
    (registry_world.config.keys_dir / "root.json").write_bytes((foreign / "root.json").read_bytes())
    with pytest.raises(ConfigError, match="differs from the root"):
        registry_world.services.registry.open()


def test_crash_between_publication_and_database_is_mended_at_start(registry_world: World) -> None:
    publish(registry_world, bundle_bytes("1.0.0"))
    with registry_world.services.store.write() as connection:
        connection.execute(tables.bundles.delete())
    again = build(registry_world.config, registry_world.clock).services
    assert again.registry.open()
    assert [view.ref.version for view in again.registry.bundles()] == ["1.0.0"]
    again.store.close()


def test_crash_before_the_timestamp_leaves_the_repository_as_it_was(
    registry_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bundle_bytes("1.0.0")
    targets = signed(registry_world, data)
    repository = registry_world.services.registry.repository
    with monkeypatch.context() as patch:
        patch.setattr(repository, "_write_timestamp", lambda _version: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            registry_world.services.registry.publish(io.BytesIO(data), targets, who="anna")
    assert list(repository.targets()) == []
    publish(registry_world, data)
    assert [path for path, _, _ in repository.targets()] == ["brightness-1.0.0.lsb"]


def test_first_default_goes_to_devices_that_have_none_and_a_later_one_leaves_them_alone(registry_world: World) -> None:
    registry_world.enrol("box-1")
    registry_world.enrol("box-2", models=["other"])
    fleet = registry_world.services.fleet
    first = publish(registry_world, bundle_bytes("1.0.0"), default=True)
    assert _active(fleet.desired("box-1")) == first["digest"]
    assert fleet.desired("box-2").bundles == {}
    second = publish(registry_world, bundle_bytes("1.1.0"), default=True)
    assert _active(fleet.desired("box-1")) == first["digest"]
    default = registry_world.services.registry.default("brightness")
    assert default is not None
    assert default.digest == second["digest"]


def test_bundle_download_goes_on_where_it_stopped(registry_world: World, http: httpx.Client) -> None:
    data = bundle_bytes("1.0.0")
    ref = publish(registry_world, data)
    url = f"/tuf/targets/{ref['digest']}.brightness-1.0.0.lsb"
    part = http.get(url, headers={"Range": "bytes=100-"})
    assert (part.status_code, part.content) == (206, data[100:])
    assert http.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    stale = http.get(url, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert (stale.status_code, stale.content) == (200, data)


@pytest.mark.parametrize(
    "path",
    [
        "metadata/2.targets.json.bak",
        "metadata/..%2f..%2fcloud.sqlite",
        "metadata/timestamp.pem",
        "targets/" + "0" * 64 + ".brightness-1.0.0.lsb",
        "targets/%2e%2e%2fx",
    ],
)
def test_nothing_but_metadata_and_bundles_is_given(http: httpx.Client, path: str) -> None:
    assert http.get(f"/tuf/{path}").status_code == 404


def test_publications_from_many_threads_are_one_after_the_other(registry_world: World) -> None:
    outcomes: list[str] = []

    def attempt(number: int) -> None:
        data = bundle_bytes(f"1.{number}.0")
        for _ in range(20):
            try:
                publish(registry_world, data)
            except ConflictError:
                continue
            outcomes.append("done")
            return

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["done"] * 4
    assert len(list(registry_world.services.registry.repository.targets())) == 4


def _active(desired: Desired) -> str | None:
    active = desired.bundles["brightness"].active
    return active.digest if active else None


def _at(world: World, updater: Updater) -> None:
    """Have the client live at the clock's moment."""
    updater._trusted_set.reference_time = now_of(world.clock)


def _resigned(world: World, document: dict[str, Any], key: Path | None = None) -> bytes:
    """Return the document signed anew: with the release key, or with another one."""
    metadata: Metadata[Any] = Metadata.from_dict(copy.deepcopy(document))
    metadata.sign(keys.load_signer(key or world.release_key))
    return metadata.to_bytes(keys.SERIALIZER)
