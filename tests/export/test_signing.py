"""Keys and signatures of bundles."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata

from cloud import keys as cloud_keys
from cloud.tuf_repository import TufRepository
from edge.errors import ConfigError, UpdateError
from export import signing
from tests.bundles import bundle_bytes


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "brightness-1.0.0.lsb"
    path.write_bytes(bundle_bytes())
    return path


def test_signature_fits_and_names_the_key(tmp_path: Path, bundle: Path) -> None:
    key = signing.make(tmp_path / "keys")
    signing.sign(bundle, key)
    assert signing.verify(bundle, tmp_path / "keys" / signing.PUBLIC_NAME) == signing.key_id(key)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_public_key_has_the_id_of_its_private_one(tmp_path: Path) -> None:
    key = signing.make(tmp_path / "keys")
    public = tmp_path / "keys" / signing.PUBLIC_NAME
    assert signing.key_id(public) == signing.key_id(key)
    assert signing.public_pem(public) == signing.public_pem(key) == public.read_text()


def test_signature_of_the_same_file_is_always_the_same(tmp_path: Path, bundle: Path) -> None:
    key = signing.make(tmp_path / "keys")
    first = signing.sign(bundle, key).read_bytes()
    assert signing.sign(bundle, key).read_bytes() == first


def test_other_file_under_the_signature_is_refused(tmp_path: Path, bundle: Path) -> None:
    signing.sign(bundle, signing.make(tmp_path / "keys"))
    bundle.write_bytes(bundle_bytes("1.0.1"))
    with pytest.raises(UpdateError, match="of another file"):
        signing.verify(bundle)


def test_other_key_is_refused(tmp_path: Path, bundle: Path) -> None:
    signing.sign(bundle, signing.make(tmp_path / "keys"))
    signing.make(tmp_path / "others")
    with pytest.raises(UpdateError, match="expected"):
        signing.verify(bundle, tmp_path / "others" / signing.PUBLIC_NAME)


def test_forged_signature_is_refused(tmp_path: Path, bundle: Path) -> None:
    path = signing.sign(bundle, signing.make(tmp_path / "keys"))
    content = json.loads(path.read_text())
    content["signature"] = "00" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(UpdateError, match="does not fit"):
        signing.verify(bundle)


def test_missing_signature_says_how_to_make_one(bundle: Path) -> None:
    with pytest.raises(UpdateError) as error:
        signing.verify(bundle)
    assert "sign BUNDLE" in error.value.hint


def test_key_is_never_overwritten(tmp_path: Path) -> None:
    signing.make(tmp_path)
    with pytest.raises(ConfigError, match="there already"):
        signing.make(tmp_path)


def test_control_plane_accepts_a_list_that_was_signed_here(tmp_path: Path, bundle: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    server = cloud_keys.create(tmp_path / "fleet", now=now)
    targets = server / "targets.json"
    version = signing.into_list(bundle, tmp_path / "fleet" / "release.pem", targets, tmp_path / "next.json")
    repository = _opened(tmp_path, server)
    path, digest, size = repository.check((tmp_path / "next.json").read_bytes())
    assert version == 2
    assert (path, size) == ("brightness/1.0.0.lsb", bundle.stat().st_size) or path.endswith("1.0.0.lsb")
    assert Metadata.from_bytes((tmp_path / "next.json").read_bytes()).signed.version == 2
    assert len(digest) == 64


def test_list_of_another_fleet_is_refused(tmp_path: Path, bundle: Path) -> None:
    server = cloud_keys.create(tmp_path / "fleet", now=datetime.now(UTC).replace(microsecond=0))
    with pytest.raises(ConfigError, match="was not signed with"):
        signing.into_list(bundle, signing.make(tmp_path / "own"), server / "targets.json", tmp_path / "next.json")


def _opened(tmp_path: Path, server: Path) -> TufRepository:
    from datetime import timedelta

    from cloud.clock import SystemClock

    life = timedelta(days=7)
    repository = TufRepository(tmp_path / "repo", server, SystemClock(), timestamp_life=life, snapshot_life=life)
    repository.open()
    return repository
