"""A packed system is what a device takes, what a control plane reads, and what a card says that it runs."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cloud.archive import read_manifest
from edge import osimage
from edge.osslots import entries
from edge.wire.base import BundleRef
from edge.wire.osimage import KERNEL
from firmware_configs.__main__ import app
from firmware_configs.image.debian import load_image
from firmware_configs.image.recipe import program_version
from firmware_configs.layout import boot_entry
from tests.firmware_configs.cards import MISSING, WHY, Card, boot_volume, names_in, read_in


def packed(image: Path, out: Path, *more: str) -> BundleRef:
    """Pack an image by the command and return what it says of it."""
    done = CliRunner().invoke(app, ["pack", "x86-box", "--image", str(image), "--out", str(out), "--json", *more])
    assert done.exit_code == 0, done.output
    return BundleRef.model_validate({k: v for k, v in json.loads(done.stdout).items() if k != "file"})


def test_packed_system_is_read_by_control_plane_and_device_alike(image_folder: Path, tmp_path: Path) -> None:
    ref = packed(image_folder, tmp_path / "os.lsb", "--version", "1.2.0")
    data = (tmp_path / "os.lsb").read_bytes()
    assert (ref.name, ref.version, ref.kind, ref.size_bytes) == ("os-x86-box", "1.2.0", "os", len(data))
    assert hashlib.sha256(data).hexdigest() == ref.digest
    root = (image_folder / "root.squashfs").read_bytes()
    assert data.startswith(root)
    assert read_manifest(tmp_path / "os.lsb").kind == "os"
    slot = tmp_path / "slot"
    slot.write_bytes(data + b"what lay here before" * 1000)  # a partition is larger than what lies on it
    with slot.open("rb", buffering=0) as device:
        assert osimage.digest_of(device, ref.size_bytes) == ref.digest
        with osimage.opened(device, ref) as image:
            assert image.manifest.profile == "x86-box"
            assert image.member(KERNEL)(2**24) == (image_folder / "vmlinuz").read_bytes()


def test_same_image_and_version_give_the_same_file(image_folder: Path, tmp_path: Path) -> None:
    first = packed(image_folder, tmp_path / "1.lsb", "--version", "1.2.0")
    assert packed(image_folder, tmp_path / "2.lsb", "--version", "1.2.0") == first
    assert packed(image_folder, tmp_path / "3.lsb", "--version", "1.2.1").digest != first.digest


@pytest.mark.parametrize("version", ["1.2", "v1.2.0", "01.2.0"])
def test_version_of_another_form_is_refused(image_folder: Path, tmp_path: Path, version: str) -> None:
    order = ["pack", "x86-box", "--image", str(image_folder), "--out", str(tmp_path / "o"), "--version", version]
    done = CliRunner().invoke(app, order)
    assert done.exit_code == 2 and "three numbers" in done.stderr
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(bool(MISSING), reason=WHY)
def test_card_starts_the_system_that_packing_would_name(card: Card, image_folder: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    assert card.write(disk).exit_code == 0
    volume = boot_volume(disk, tmp_path / "boot")
    (name,) = (name for name in names_in(volume) if "entries" in name)
    entry = entries.parse(Path(name).name, read_in(volume, name))
    assert entry is not None and (entry.slot, entry.tries.left) == ("a", 3)
    assert boot_entry(entry.options) == (f"loader/entries/{entry.name}", entry.text)
    ref = packed(image_folder, tmp_path / "os.lsb")
    assert entries.system_of(entry.options) == ("a", ref)
    assert ref.version == load_image(image_folder).version
    assert '[os]\nslots = "systemd-boot"' in read_in(volume, "lineside/box.toml")


@pytest.mark.parametrize(
    ("wheels", "version"),
    [
        ([("lineside-1.4.2-py3-none-any.whl", "")], "1.4.2"),
        ([("lineside-1.4.2.dev1-py3-none-any.whl", "")], "0.0.0"),
        ([("numpy-2.0.0-cp311-abi3.whl", "")], "0.0.0"),
    ],
)
def test_image_is_called_by_the_version_of_the_program_in_it(wheels: list[tuple[str, str]], version: str) -> None:
    assert program_version(wheels) == version
