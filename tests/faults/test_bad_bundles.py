"""Bundles that must not run: each is refused in words on the device and in the cloud, and the old one goes on deciding.

Everything is real: the control plane serves a signed repository, and each test does to its disk what an attacker, a
failing disk or a careless hand would do.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile, Targets

from cloud import keys
from edge.bundle import parse
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.faults.camera import Camera
from tests.faults.plant import START_S, Cloud, Device
from tests.waiting import wait_until

PICTURES_PER_S = 20.0
TOLD_S = 60.0
"""Longest wait for a refusal to be told: downloading, checking and reporting take about two seconds."""


@pytest.fixture
def device(tmp_path: Path, cloud: Cloud, rng: random.Random) -> Iterator[Device]:
    """A device that decides with version 1.0.0 and is heard by the control plane."""
    made = Device(tmp_path / "box-1", cloud_url=cloud.url, claim=cloud.claim("box-1"), root=cloud.root)
    with made, Camera(made.inbox, PICTURES_PER_S, rng):
        made.wait_for(lambda: made.serving() == "1.0.0", START_S, "it to decide with 1.0.0")
        wait_until(lambda: _known(cloud), START_S, "the control plane to hear of it")
        yield made


def test_bundle_cut_short_on_the_server_is_refused(tmp_path: Path, cloud: Cloud, device: Device) -> None:
    ref = _publish(cloud, "1.1.0", tmp_path)
    blob = _blob(cloud, ref)
    blob.write_bytes(blob.read_bytes()[:1500])
    _expect_refusal(cloud, device, ref, f"expected {ref.size_bytes} bytes, the server has 1500")


def test_bundle_altered_on_the_server_is_refused(tmp_path: Path, cloud: Cloud, device: Device) -> None:
    ref = _publish(cloud, "1.1.0", tmp_path)
    blob = _blob(cloud, ref)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(bytes(data))
    _expect_refusal(cloud, device, ref, f"expected SHA-256 {ref.digest}")


def test_bundle_signed_with_another_key_is_refused(tmp_path: Path, cloud: Cloud, device: Device) -> None:
    """The server itself is taken over: its disk and its online keys are in wrong hands, the release key is not."""
    cloud.stop()
    ref = _forge(cloud, bundle_bytes("6.6.6", kind="inverted"), signer=CryptoSigner.generate_ed25519())
    cloud.start()
    _expect_refusal(cloud, device, ref, "not signed by the keys that this device trusts")


def test_damaged_bundle_of_the_first_set_up_is_told_and_every_part_is_handed_over(
    tmp_path: Path, rng: random.Random
) -> None:
    for number, damaged in enumerate((bundle_bytes()[:2000], b"", bundle_bytes().replace(b"good", b"evil"))):
        device = Device(tmp_path / f"box-{number}", bundle=damaged)
        with device, Camera(device.inbox, PICTURES_PER_S, rng):
            device.wait_for_action()
            (told,) = device.events("bundle_refused")
            assert (told["severity"], "first.lsb" in told["detail"]) == ("alarm", True)
            assert {action["action"] for action in device.actions()} == {"hand_over"}
            assert {decision.get("reason") for decision in device.decisions()} <= {"model_error", "bad_input"}


def _expect_refusal(cloud: Cloud, device: Device, ref: BundleRef, words: str) -> None:
    """Roll it out; make sure that it is refused in these words everywhere, and that the device goes on."""
    rollout = cloud.roll_out(ref.version, ["box-1"])

    def refusals() -> list[dict[str, Any]]:
        found = cloud.reported("box-1").get("refusals", [])
        return [refusal for refusal in found if refusal["bundle"]["digest"] == ref.digest]

    device.wait_for(refusals, TOLD_S, "the refusal in the cloud")
    assert words in refusals()[0]["reason"]
    events = [event for event in device.events("bundle_refused") if event["data"]["bundle"]["digest"] == ref.digest]
    assert events[0]["severity"] == "alarm" and words in events[0]["detail"]
    assert words in device.status().stdout
    wait_until(lambda: cloud.rollout(rollout)["status"] == "rolled_back", TOLD_S, "the rollout to be taken back")
    assert "refused" in cloud.rollout(rollout)["why"]
    before = len(device.decisions())
    device.wait_for(lambda: len(device.decisions()) >= before + 20, TOLD_S, "more decisions")
    deciding = {(d["bundle"]["version"], d.get("reason") == "model_error") for d in device.decisions()[before:]}
    assert deciding == {("1.0.0", False)}
    fetched = device.data_dir / "bundles"  # a last try may still be under way
    device.wait_for(lambda: not list(fetched.glob(f"*{ref.digest}*.part")), TOLD_S, "what was fetched of it to be gone")


def _known(cloud: Cloud) -> bool:
    return bool(cloud.rows("SELECT 1 FROM device_state WHERE reported IS NOT NULL"))


def _publish(cloud: Cloud, version: str, folder: Path, **changes: Any) -> BundleRef:
    data = bundle_bytes(version, **changes)
    cloud.publish(data, folder / f"{version}.lsb")
    return parse(data).ref


def _blob(cloud: Cloud, ref: BundleRef) -> Path:
    return cloud.data_dir / "bundles" / ref.digest[:2] / ref.digest


def _forge(cloud: Cloud, data: bytes, signer: CryptoSigner) -> BundleRef:
    """Put a bundle into the server's repository, its list signed by somebody else's key."""
    ref = parse(data).ref
    blob = _blob(cloud, ref)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    current = max((cloud.data_dir / "tuf").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    forged = Metadata[Targets].from_bytes(current.read_bytes())
    forged.signed.targets[ref.target_path] = TargetFile(ref.size_bytes, {"sha256": ref.digest}, ref.target_path)
    forged.signed.version += 1
    forged.sign(signer)
    _sign_anew(cloud, forged.to_bytes(keys.SERIALIZER))
    return ref


def _sign_anew(cloud: Cloud, targets: bytes) -> None:
    """Sign snapshot and timestamp with the server's keys, for another list of bundles."""
    folder, online = cloud.data_dir / "tuf", cloud.data_dir / "keys"
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    version = Metadata[Targets].from_bytes(targets).signed.version
    (folder / f"{version}.targets.json").write_bytes(targets)
    number = 1 + max(int(path.name.split(".")[0]) for path in folder.glob("*.snapshot.json"))
    snapshot = keys.snapshot_of(version, version=number, expires=expires)
    snapshot.sign(keys.load_signer(online / "snapshot.pem"))
    (folder / f"{number}.snapshot.json").write_bytes(snapshot.to_bytes(keys.SERIALIZER))
    latest = Metadata.from_bytes((folder / "timestamp.json").read_bytes())
    timestamp = keys.timestamp_of(number, version=latest.signed.version + 1, expires=expires)
    timestamp.sign(keys.load_signer(online / "timestamp.pem"))
    (folder / "timestamp.json").write_bytes(timestamp.to_bytes(keys.SERIALIZER))
