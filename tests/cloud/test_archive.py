"""Bundles as the control plane reads them: the same ones as a device, and damage is said plainly."""

import zipfile
from pathlib import Path

import pytest

from cloud.archive import read_manifest
from cloud.errors import InvalidError
from edge.bundle import parse
from export.pack import file_entries, write
from tests.bundles import bundle_bytes


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
