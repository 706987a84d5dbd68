"""Bundles as the control plane reads them: the same ones as a device, and damage is said plainly."""

import zipfile
from pathlib import Path

import pytest

from cloud.archive import read_manifest
from cloud.errors import InvalidError
from edge.bundle import parse
from edge.wire.osimage import OsManifest
from export.pack import file_entries, write
from tests.bundles import bundle_bytes
from tests.systems import entry, packed, system


def compressed(path: Path) -> Path:
    """Write a bundle one of whose members is compressed."""
    opened = parse(bundle_bytes())
    files = {**opened.files, "more.bin": b"a line that repeats\n" * 5000}
    write(opened.manifest.model_copy(update={"files": file_entries(files)}), files, path)
    return path


def test_bundle_with_a_compressed_member_is_read(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.lsb")
    with zipfile.ZipFile(path) as archive:
        assert archive.getinfo("more.bin").compress_type == zipfile.ZIP_BZIP2
    assert read_manifest(path).name == "brightness"


def test_damage_inside_a_compressed_member_is_said_to_be_no_bundle(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.lsb")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("more.bin")
    data = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len("more.bin")
    data[start + 4 : start + 10] = b"\x00" * 6
    path.write_bytes(bytes(data))
    with pytest.raises(InvalidError, match="not a bundle"):
        read_manifest(path)


def test_operating_system_is_read_with_its_root(tmp_path: Path) -> None:
    path = tmp_path / "os.lsb"
    path.write_bytes(system("1.2.0").data)
    manifest = read_manifest(path)
    assert isinstance(manifest, OsManifest)
    assert (manifest.name, manifest.version, manifest.kind) == ("os-x86-box", "1.2.0", "os")


@pytest.mark.parametrize(("damage", "why"), [("root", "the root is not"), ("vmlinuz", "vmlinuz is not the file")])
def test_operating_system_that_is_not_what_it_lists_is_refused(tmp_path: Path, damage: str, why: str) -> None:
    path = tmp_path / "os.lsb"
    path.write_bytes(system("1.2.0").data)
    manifest = read_manifest(path)
    assert isinstance(manifest, OsManifest)
    files = {"vmlinuz": b"k", "initrd": b"i"}
    listed = {name: entry(content) for name, content in files.items()}
    manifest = manifest.model_copy(update={"root": entry(b"root"), "files": listed})
    parts = {"root": b"root", **files}
    assert read_manifest_of(packed(manifest, parts["root"], files).data, path).name == "os-x86-box"
    parts[damage] = b"r00t" if damage == "root" else b"K"
    with pytest.raises(InvalidError, match=why):
        read_manifest_of(packed(manifest, parts.pop("root"), parts).data, path)


def read_manifest_of(data: bytes, path: Path) -> OsManifest:
    path.write_bytes(data)
    manifest = read_manifest(path)
    assert isinstance(manifest, OsManifest)
    return manifest
