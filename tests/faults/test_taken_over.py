"""The server is taken over: who holds its disk, its network and its online keys makes no device run a foreign model.

The attacker has the keys of snapshot and timestamp (they lie on the server), the certificate, the broker, and may send
any desired state; not the keys of root and targets. Repository, downloads, signature check and slots are the real ones.
Every attack ends the same way: the old bundle decides, nothing of the foreign one ran, and it is said why.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from pydantic import ValidationError
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import TargetFile

from edge.bundle import Bundle, parse
from edge.bydelta import Way
from edge.engines import Engine
from edge.fetch import FetchLimits, fetch_bundle
from edge.wire.base import BundleRef
from edge.wire.rows import EventRow
from tests.bundles import archive, bundle_bytes
from tests.edge.updatebox import MODEL, Box
from tests.tufrepo import TufRepo
from tests.webserver import WebServer

FOREIGN = "6.6.6"
QUICK = FetchLimits(deadline_s=5, slow_s=0.3, attempts=2, pause_s=0.01, margin_bytes=0)
LATEST = 2**63 - 1
CLOCK = """
import datetime, os
if "TEST_CLOCK_DAYS" in os.environ:
    class Shifted(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return super().now(tz) + datetime.timedelta(days=int(os.environ["TEST_CLOCK_DAYS"]))
    datetime.datetime = Shifted
"""


class World(Box):
    """A device that was set up with 1.0.0, and the server that it believes to be its own."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        super().__init__(folder)
        self.folder, self.server, self.repo = folder, server, TufRepo()
        self.opened: list[str] = []
        """Digests of what the runtime was given and took."""
        self.before_load: Callable[[Path], None] = lambda _path: None
        (folder / "root.json").write_bytes(self.repo.sign("root"))
        self.sign(bundle_bytes("1.0.0"))
        self.first = self.set_up_with("1.0.0")
        self.sign(bundle_bytes("1.1.0"))
        self.publish_all()

    def open(self, bundle: Bundle, **limits: Any) -> Engine:
        engine = super().open(bundle, **limits)
        self.opened.append(bundle.ref.digest)
        return engine

    async def fetch(self, ref: BundleRef, path: Path, base: Path | None) -> Way:
        root, trust = self.folder / "root.json", self.folder / "trust"
        way = await fetch_bundle(
            ref, path, base_url=self.server.url, root=root, trust_dir=trust, base=base, limits=QUICK
        )
        self.before_load(path)
        return way

    def sign(self, data: bytes) -> BundleRef:
        """The owner signs a bundle, away from the server; it is served from the next `publish_all` on."""
        ref = parse(data).ref
        self.repo.add(ref.target_path, data)
        self.serve_at(ref, data)
        return ref

    def serve_at(self, ref: BundleRef, data: bytes) -> None:
        self.server.files[f"/tuf/targets/{ref.digest}.{ref.target_path}"] = data

    def publish_all(self, *, new_root: bool = False) -> None:
        self.repo.step()
        self.put(self.repo.publish(new_root=new_root))

    def put(self, files: dict[str, bytes]) -> None:
        self.server.files |= {f"/tuf/metadata/{name}": data for name, data in files.items()}

    def metadata(self) -> dict[str, bytes]:
        prefix = "/tuf/metadata/"
        return {name.removeprefix(prefix): data for name, data in self.server.files.items() if name.startswith(prefix)}

    def said(self) -> str:
        """Return what the device would report and has on record."""
        events = [row.detail for row in self.store.rows(kind="event") if isinstance(row, EventRow)]
        return "\n".join([*self.reasons, *events])

    def has_taken(self, version: str, config_version: int = 1) -> BundleRef:
        """The device is brought to a bundle in the regular way."""
        ref = self.sign(bundle_bytes(version))
        self.publish_all()
        assert self.want(config_version, ref)
        assert self.serve() == version
        return ref


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    with WebServer() as server:
        made = World(tmp_path, server)
        yield made
        made.serving.close()
        made.store.close()


def foreign(version: str = FOREIGN) -> tuple[BundleRef, bytes]:
    data = bundle_bytes(version, kind="inverted")
    return parse(data).ref, data


# ── attacks: each does its worst and returns the bundle that the device is told to run ──────────────────────────


def nobody_signed_it(world: World) -> BundleRef:
    ref, data = foreign()
    world.serve_at(ref, data)
    return ref


def signed_by_a_stranger(world: World) -> BundleRef:
    ref, data = foreign()
    world.serve_at(ref, data)
    world.repo.add(ref.target_path, data)
    world.repo.signers["targets"] = [CryptoSigner.generate_ed25519()]
    world.publish_all()
    return ref


def signed_by_the_keys_that_lie_on_the_server(world: World) -> BundleRef:
    ref, data = foreign()
    world.serve_at(ref, data)
    world.repo.add(ref.target_path, data)
    world.repo.signers["targets"] = [*world.repo.signers["timestamp"], *world.repo.signers["snapshot"]]
    world.publish_all()
    return ref


def one_of_two_keys_signs_twice(world: World) -> BundleRef:
    second = CryptoSigner.generate_ed25519()
    world.repo.root.add_key(second.public_key, "targets")
    world.repo.root.roles["targets"].threshold = 2
    world.repo.old_root_signers = list(world.repo.signers["root"])
    world.publish_all(new_root=True)
    ref, data = foreign()
    world.serve_at(ref, data)
    world.repo.add(ref.target_path, data)
    world.publish_all()
    name = f"{world.repo.targets.version}.targets.json"
    signed = json.loads(world.metadata()[name])
    signed["signatures"] *= 2
    world.put({name: json.dumps(signed).encode()})
    return ref


def root_of_its_own(world: World) -> BundleRef:
    other = TufRepo()
    other.root.version = 2
    ref, data = foreign()
    world.serve_at(ref, data)
    other.add(ref.target_path, data)
    for _ in range(5):
        other.step()
    world.put(other.publish())
    return ref


def foreign_bytes_under_a_signed_name(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    data = bytearray(bundle_bytes("1.2.0"))
    data[len(data) // 2] ^= 1
    world.serve_at(ref, bytes(data))
    return ref


def old_list_played_back(world: World) -> BundleRef:
    old = world.metadata()
    world.has_taken("1.2.0")
    ref = world.sign(bundle_bytes("1.3.0"))
    world.publish_all()
    world.put({"timestamp.json": old["timestamp.json"]})
    return ref


def old_list_played_back_after_it_ran_out(world: World) -> BundleRef:
    world.repo.timestamp.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    old = world.metadata()
    world.has_taken("1.2.0")
    ref = world.sign(bundle_bytes("1.3.0"))
    world.put({"timestamp.json": old["timestamp.json"]})
    os.environ["TEST_CLOCK_DAYS"] = "2"
    return ref


def old_version_below_the_floor(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("0.9.0"))
    world.publish_all()
    return ref


def targets_of_yesterday_in_the_snapshot_of_today(world: World) -> BundleRef:
    ref, data = foreign()
    world.serve_at(ref, data)
    world.has_taken("1.2.0")
    world.repo.step()
    world.repo.targets.version -= 2
    world.repo.add(ref.target_path, data)
    world.put(world.repo.publish())
    return ref


def model_of_one_bundle_in_another(world: World) -> BundleRef:
    """Each file is genuine; no two of them were signed together."""
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    world.serve_at(ref, _with(bundle_bytes("1.2.0"), {"model.onnx": _member(foreign()[1], "model.onnx")}))
    return ref


def endless_list(world: World) -> BundleRef:
    world.server.behaviour.endless = True
    return nobody_signed_it(world)


def endless_bundle(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    world.serve_at(ref, bundle_bytes("1.2.0") + bytes(2**20))
    return ref


def line_that_only_drips(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    world.server.behaviour.drip_s = 0.002
    return ref


def other_hardware(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0", requires={"profiles": ["rpi4"]}))
    world.publish_all()
    return ref


def frozen(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    os.environ["TEST_CLOCK_DAYS"] = "40"
    return ref


def frozen_with_the_clock_set_back(world: World) -> BundleRef:
    """The list has run out; the attacker, who also answers for the time, sets the clock back to before."""
    os.environ["TEST_CLOCK_DAYS"] = "25"
    world.has_taken("1.2.0")
    ref = world.sign(bundle_bytes("1.3.0"))
    world.repo.timestamp.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=20)
    world.publish_all()
    os.environ["TEST_CLOCK_DAYS"] = "-3000"
    return ref


def clock_of_2099(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    os.environ["TEST_CLOCK_DAYS"] = str(365 * 73)
    return ref


def data_outside_of_the_model(world: World) -> BundleRef:
    """Even a signed bundle takes nothing from the device's own files."""

    def outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer.add(name="stolen", dims=[1], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "../../../../etc/passwd"), ("length", str(2**42))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return _signed_with_model(world, outside)


def operator_of_a_foreign_library(world: World) -> BundleRef:
    return _signed_with_model(world, lambda model: model.opset_import.append(helper.make_opsetid("evil.ops", 1)))


def member_that_leads_elsewhere(world: World) -> BundleRef:
    return _signed_as_it_is(world, _with(bundle_bytes("1.2.0"), {"../../evil.py": b"import os"}))


def member_that_unpacks_to_more_than_it_says(world: World) -> BundleRef:
    stream = io.BytesIO(bundle_bytes("1.2.0"))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as target:
        target.writestr("zeros", bytes(2**24))
    return _signed_as_it_is(world, stream.getvalue())


def swapped_between_check_and_load(world: World) -> BundleRef:
    ref = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()

    def swap(path: Path) -> None:
        path.write_bytes(foreign()[1])

    world.before_load = swap
    return ref


ATTACKS: list[tuple[Callable[[World], BundleRef], str]] = [
    (nobody_signed_it, "not among the signed"),
    (signed_by_a_stranger, "not signed by the keys that this device trusts"),
    (signed_by_the_keys_that_lie_on_the_server, "not signed by the keys that this device trusts"),
    (one_of_two_keys_signs_twice, "cannot be used|not signed by the keys"),
    (root_of_its_own, "not signed by the keys that this device trusts"),
    (foreign_bytes_under_a_signed_name, "expected SHA-256"),
    (old_list_played_back, "older than what this device has seen"),
    (old_list_played_back_after_it_ran_out, "older than what this device has seen|expired"),
    (old_version_below_the_floor, "below 1.0.0, which the device was set up with"),
    (targets_of_yesterday_in_the_snapshot_of_today, "older than what this device has seen|cannot be used"),
    (model_of_one_bundle_in_another, "expected SHA-256|the server has"),
    (endless_list, "more came than was signed|did not come|could not be fetched|what came is not"),
    (endless_bundle, "the server has|more than"),
    (line_that_only_drips, "bytes/s|slow"),
    (other_hardware, "made for rpi4, this device is x86-box"),
    (frozen, "expired"),
    (frozen_with_the_clock_set_back, "expired"),
    (clock_of_2099, "expired"),
    (data_outside_of_the_model, "outside of its file"),
    (operator_of_a_foreign_library, "evil.ops"),
    (member_that_leads_elsewhere, "evil.py"),
    (member_that_unpacks_to_more_than_it_says, "zeros|larger|unpack"),
    (swapped_between_check_and_load, "digest is .*, expected "),
]


@pytest.mark.parametrize(("attack", "words"), ATTACKS, ids=[attack.__name__ for attack, _ in ATTACKS])
def test_whoever_has_the_server_makes_no_device_run_a_foreign_model(
    world: World, attack: Callable[[World], BundleRef], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_CLOCK_DAYS", "0")
    wanted = attack(world)
    before, opened = world.serve(), list(world.opened)
    world.want(100, wanted)
    assert world.serve() == before, "the bundle that decided goes on deciding"
    assert world.opened == opened, "the runtime ran nothing of it"
    assert world.slot_file.book.state(wanted.digest) in ("empty", "staged", "bad")
    assert re.search(words, world.said())


@pytest.mark.parametrize("name", ["../../etc/cron", "/etc/passwd", "a\0b", "A..B/..", "brightness/../x", ""])
def test_desired_state_that_names_a_path_is_not_even_a_message(name: str) -> None:
    with pytest.raises(ValidationError):
        BundleRef(name=name, version="1.0.0", digest="a" * 64, size_bytes=1)


def test_command_for_another_device_or_from_an_earlier_time_is_ignored(world: World) -> None:
    newer = world.has_taken("1.2.0", config_version=7)
    assert world.want(6, world.first), "an older document counts as done"
    assert world.serve() == newer.version


def test_fast_forward_is_healed_by_a_rotated_key_and_the_owner_goes_on(world: World) -> None:
    """With the key of the timestamp one can make every later one look old, until the owner takes that key away."""
    world.has_taken("1.1.0")
    world.repo.timestamp.version = LATEST - 1
    world.put(world.repo.publish())
    assert world.want(2, world.sign(bundle_bytes("1.2.0")))
    world.repo.timestamp.version = 10
    world.publish_all()
    assert world.serve() == "1.1.0"
    for role in ("timestamp", "snapshot"):
        world.repo.set_key(role)
    world.repo.old_root_signers = list(world.repo.signers["root"])
    wanted = world.sign(bundle_bytes("1.3.0"))
    world.publish_all(new_root=True)
    assert world.want(3, wanted)
    assert world.serve() == "1.3.0"


def test_bundle_swapped_on_the_disk_after_it_was_staged_is_fetched_anew(world: World) -> None:
    wanted = world.sign(bundle_bytes("1.2.0"))
    world.publish_all()
    assert world.want(2, world.first, candidate=wanted)
    world.slot_file.bundle_path(wanted).write_bytes(foreign()[1])
    assert world.want(3, wanted)
    assert world.serve() == "1.2.0"
    assert foreign()[0].digest not in world.opened


# ── private ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        return source.read(name)


def _with(data: bytes, changes: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    return archive({**members, **changes})


def _signed_with_model(world: World, change: Callable[[onnx.ModelProto], object]) -> BundleRef:
    genuine = bundle_bytes("1.2.0")
    model = onnx.load_from_string(_member(genuine, "model.onnx"))
    change(model)
    data = model.SerializeToString()
    manifest = json.loads(_member(genuine, "manifest.json"))
    manifest["files"]["model.onnx"] = {"digest": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    changes = {"model.onnx": data, "manifest.json": json.dumps(manifest).encode()}
    return _signed_as_it_is(world, _with(genuine, changes))


def _signed_as_it_is(world: World, data: bytes) -> BundleRef:
    digest = hashlib.sha256(data).hexdigest()
    ref = BundleRef(name=MODEL, version="1.2.0", digest=digest, size_bytes=len(data))
    world.repo.targets.targets[ref.target_path] = TargetFile.from_data(ref.target_path, data, ["sha256"])
    world.serve_at(ref, data)
    world.publish_all()
    return ref
