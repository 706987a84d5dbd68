"""Attacks on the signed list of bundles, named as the TUF specification names them, against the real child process."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Targets

from edge.errors import ConfigError, LinkError, StoreError, UpdateError
from edge.trust import TargetInfo, main, trusted_target
from tests.badlink import BadLink
from tests.tufrepo import TufRepo
from tests.webserver import WebServer

NAME = "phone_glass-1.0.0.lsb"
DATA = b"a bundle"


class World:
    """A signed repository, the server that serves it, and a device that trusts its first root."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.repo = TufRepo()
        self.digest = self.repo.add(NAME, DATA)
        self.server = server
        self.folder = folder / "metadata"
        self.root = folder / "root.json"
        self.root.write_bytes(self.repo.sign("root"))
        self.publish()

    def publish(self, *, new_root: bool = False) -> None:
        self.serve(self.repo.publish(new_root=new_root))

    def serve(self, files: dict[str, bytes]) -> None:
        self.server.files = {f"/tuf/metadata/{name}": data for name, data in files.items()}

    def replace(self, name: str, data: bytes) -> None:
        self.server.files[f"/tuf/metadata/{name}"] = data

    def ask(self, name: str = NAME, *, url: str | None = None, deadline_s: float = 30) -> TargetInfo:
        return trusted_target(
            name,
            metadata_dir=self.folder,
            metadata_url=url or f"{self.server.url}/tuf/metadata",
            root=self.root,
            deadline_s=deadline_s,
        )

    def run(self, verb: str, name: str = NAME) -> int:
        """Run a verb in this process, as the conformance suite would from the command line."""
        base = ["--metadata-dir", str(self.folder), "--root", str(self.root)]
        base += ["--metadata-url", f"{self.server.url}/tuf/metadata"]
        files = ["--target-base-url", f"{self.server.url}/targets", "--target-dir", str(self.targets)]
        return main([*base, "--target-name", name, *files, verb])

    @property
    def targets(self) -> Path:
        return self.folder.with_name("targets")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with WebServer() as server:
        yield World(tmp_path, server)


def test_signed_bundle_gives_digest_and_size(world: World) -> None:
    assert world.ask() == TargetInfo(digest=world.digest, size_bytes=len(DATA))


def test_unknown_bundle_is_refused_with_a_hint(world: World) -> None:
    with pytest.raises(UpdateError, match=r"other-1\.0\.0\.lsb is not among the signed bundles") as caught:
        world.ask("other-1.0.0.lsb")
    assert "signature" in caught.value.hint
    assert not caught.value.retry


def test_bundle_added_later_is_known_after_the_next_question(world: World) -> None:
    world.ask()
    digest = world.repo.add("phone_glass-1.1.0.lsb", b"newer")
    world.repo.step()
    world.publish()
    assert world.ask("phone_glass-1.1.0.lsb").digest == digest


def test_timestamp_rollback_is_refused_and_the_new_one_still_counts(world: World) -> None:
    old = dict(world.repo.publish())
    world.repo.step()
    world.publish()
    world.ask()
    world.replace("timestamp.json", old["timestamp.json"])
    with pytest.raises(UpdateError, match="older than what this device has seen"):
        world.ask()
    world.publish()
    assert world.ask().digest == world.digest


def test_snapshot_that_forgets_a_newer_targets_version_is_refused(world: World) -> None:
    world.repo.step()
    world.publish()
    world.ask()
    world.repo.targets.version -= 1  # an old list under a new snapshot and timestamp: mix and match
    world.repo.snapshot.version += 1
    world.repo.timestamp.version += 1
    world.publish()
    with pytest.raises(UpdateError, match="older"):
        world.ask()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_expired_metadata_is_refused_but_may_be_tried_again(world: World, role: str) -> None:
    world.repo.step()
    getattr(world.repo, role).expires = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    world.publish()
    with pytest.raises(UpdateError, match="expired") as caught:
        world.ask()
    assert caught.value.retry
    assert "clock" in caught.value.hint


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_metadata_signed_by_a_strangers_key_is_refused(world: World, role: str) -> None:
    stranger = TufRepo()
    world.repo.step()
    world.repo.signers[role] = stranger.signers[role]
    world.publish()
    with pytest.raises(UpdateError, match="not signed by the keys that this device trusts"):
        world.ask()


def test_altered_list_of_bundles_is_refused(world: World) -> None:
    name = "1.targets.json"
    forged = json.loads(world.server.files[f"/tuf/metadata/{name}"])
    forged["signed"]["targets"][NAME]["hashes"]["sha256"] = "0" * 64
    world.replace(name, json.dumps(forged).encode())
    with pytest.raises(UpdateError, match="not signed"):
        world.ask()


@pytest.mark.parametrize("junk", [b"", b"{}", b"\xff" * 100, b"[" * 10_000])
def test_junk_instead_of_metadata_is_refused(world: World, junk: bytes) -> None:
    world.replace("timestamp.json", junk)
    with pytest.raises(UpdateError):
        world.ask()


def test_endless_metadata_is_given_up(world: World) -> None:
    world.server.behaviour.endless = True
    with pytest.raises(UpdateError, match="more came than was signed"):
        world.ask()
    assert world.server.body_bytes < 8 * 2**20


def test_keys_rotated_by_a_signed_root_are_trusted(world: World) -> None:
    world.ask()
    world.repo.step()
    for role in ("root", "targets", "timestamp"):
        world.repo.set_key(role)
    world.publish(new_root=True)
    assert world.ask().digest == world.digest


def test_fast_forward_attack_is_healed_by_a_new_root(world: World) -> None:
    for signed in (world.repo.snapshot, world.repo.timestamp):
        signed.version = 2**40
    world.publish()
    world.ask()
    for signed in (world.repo.snapshot, world.repo.timestamp):
        signed.version = 7
    world.repo.set_key("timestamp")
    world.repo.set_key("snapshot")
    world.publish(new_root=True)
    assert world.ask().digest == world.digest


def test_root_that_the_old_one_did_not_sign_is_refused(world: World) -> None:
    world.ask()
    world.repo.set_key("root")
    world.repo.old_root_signers = []
    world.publish(new_root=True)
    with pytest.raises(UpdateError, match="not signed"):
        world.ask()


def test_another_control_plane_is_refused(world: World) -> None:
    other = TufRepo()
    other.add(NAME, b"something else")
    world.serve(other.publish())
    with pytest.raises(UpdateError, match="not signed") as caught:
        world.ask()
    assert "flashed" in caught.value.hint


def test_nobody_answers_is_a_matter_of_the_link(world: World) -> None:
    with pytest.raises(LinkError, match="could not be fetched"):
        world.ask(url="http://127.0.0.1:9/tuf/metadata")


def test_server_error_is_a_matter_of_the_link(world: World) -> None:
    world.server.behaviour.status = [500]
    with pytest.raises(LinkError, match="500"):
        world.ask()


def test_dripping_server_ends_at_the_deadline(world: World) -> None:
    world.server.behaviour.drip_s = 0.5
    began = time.monotonic()
    with pytest.raises(LinkError, match="within 2 s"):
        world.ask(deadline_s=2)
    assert time.monotonic() - began < 6


def test_silent_network_ends_at_the_deadline(world: World) -> None:
    with BadLink(world.server.port) as bad:
        bad.hole = True
        with pytest.raises(LinkError, match="within 2 s"):
            world.ask(url=f"http://127.0.0.1:{bad.port}/tuf/metadata", deadline_s=2)


def test_device_without_a_root_of_trust_says_so(world: World) -> None:
    world.root.unlink()
    with pytest.raises(ConfigError, match="no root of trust"):
        world.ask()


def test_damaged_metadata_on_the_device_is_fetched_again(world: World) -> None:
    world.ask()
    for path in world.folder.glob("*.json"):
        if not path.is_symlink():
            path.write_bytes(b"")
    assert world.ask().digest == world.digest


def test_metadata_folder_lost_starts_from_the_flashed_root(world: World) -> None:
    world.ask()
    shutil.rmtree(world.folder)
    assert world.ask().digest == world.digest


def test_metadata_folder_that_cannot_be_made_is_a_matter_of_the_disk(world: World) -> None:
    world.folder.write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        world.ask()


def test_verbs_of_the_conformance_suite_work_from_the_command_line(world: World, tmp_path: Path) -> None:
    world.server.files[f"/targets/{world.digest}.{NAME}"] = DATA
    base = [sys.executable, "-m", "edge.trust", "--metadata-dir", str(world.folder)]
    url = ["--metadata-url", f"{world.server.url}/tuf/metadata"]
    subprocess.run([*base, "init", str(world.root)], check=True)
    subprocess.run([*base, *url, "refresh"], check=True)
    files = [
        "--target-name",
        NAME,
        "--target-base-url",
        f"{world.server.url}/targets",
        "--target-dir",
        str(tmp_path / "t"),
    ]
    (tmp_path / "t").mkdir()
    subprocess.run([*base, *url, *files, "download"], check=True)
    assert (tmp_path / "t" / NAME).read_bytes() == DATA
    world.server.behaviour.status = [500]
    assert subprocess.run([*base, *url, "refresh"], check=False, capture_output=True).returncode == 1


def test_refusal_on_the_command_line_is_in_words(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.replace("timestamp.json", b"{}")
    url = ["--metadata-url", f"{world.server.url}/tuf/metadata", "--root", str(world.root)]
    assert main(["--metadata-dir", str(world.folder), *url, "refresh"]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_download_of_a_path_is_one_file_and_is_fetched_once(world: World) -> None:
    path = "pi/arm64/os-1.0.0.img"
    digest = world.repo.add(path, b"an image")
    world.publish()
    served = f"/targets/pi/arm64/{digest}.os-1.0.0.img"
    world.server.files[served] = b"an image"
    assert world.run("download", path) == 0
    del world.server.files[served]
    assert world.run("download", path) == 0
    assert [kept.read_bytes() for kept in world.targets.iterdir()] == [b"an image"]


def test_download_that_was_altered_is_refused_and_not_kept(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.files[f"/targets/{world.digest}.{NAME}"] = DATA[::-1]
    assert world.run("download") == 1
    assert "not what was signed" in capsys.readouterr().err
    assert list(world.targets.iterdir()) == []


def test_download_that_is_not_served_names_the_file(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.run("download") == 1
    assert f"{NAME} could not be fetched" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "missing"),
    [("refresh", "--metadata-url"), ("target", "--target-name"), ("download", "--target-base-url, --target-dir")],
)
def test_verb_without_what_it_needs_says_what(
    world: World, capsys: pytest.CaptureFixture[str], verb: str, missing: str
) -> None:
    assert main(["--metadata-dir", str(world.folder), verb]) == 1
    assert missing in capsys.readouterr().err
    assert not world.folder.exists()


def test_repository_without_versions_in_its_names_is_understood(world: World) -> None:
    world.repo.root.consistent_snapshot = False
    world.root.write_bytes(world.repo.sign("root"))
    files = world.repo.publish()
    world.serve({name.removeprefix("1."): data for name, data in files.items()})
    world.server.files[f"/targets/{NAME}"] = DATA
    assert world.run("download") == 0
    assert [kept.read_bytes() for kept in world.targets.iterdir()] == [DATA]


@pytest.mark.parametrize("role", ["../outside", "/outside", "?", "#"])
def test_delegated_role_of_any_name_stays_in_the_folder(world: World, role: str) -> None:
    signer = CryptoSigner.generate_ed25519()
    key = signer.public_key
    delegated = DelegatedRole(role, [key.keyid], 1, False, paths=["kit/*"])
    world.repo.targets.delegations = Delegations({key.keyid: key}, {role: delegated})
    world.repo.snapshot.meta[f"{role}.json"] = MetaFile(1)
    signed = Metadata(Targets(expires=world.repo.targets.expires))
    signed.sign(signer)
    world.publish()
    before = set(world.folder.parent.iterdir())
    world.replace(f"1.{quote(role, '')}.json", signed.to_bytes())
    assert world.run("download", "kit/unknown") == 1
    assert set(world.folder.parent.iterdir()) - before == {world.folder}
    assert (world.folder / f"{quote(role, '')}.json").read_bytes() == signed.to_bytes()
