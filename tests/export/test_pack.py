"""Bundles as archives: reproducible, complete, and read back by the device's own reader."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load, parse
from edge.errors import UpdateError
from edge.wire.manifest import Manifest
from export.pack import file_entries, pack, write
from tests.bundles import bundle_bytes


def manifest_and_files() -> tuple[Manifest, dict[str, bytes]]:
    opened = parse(bundle_bytes())
    return opened.manifest, opened.files


def test_same_inputs_give_the_same_bytes() -> None:
    manifest, files = manifest_and_files()
    backwards = dict(reversed(list(files.items())))
    assert pack(manifest, files) == pack(manifest, backwards)


def test_written_bundle_is_read_back_with_the_same_manifest(tmp_path: Path) -> None:
    manifest, files = manifest_and_files()
    ref = write(manifest, files, tmp_path / "deeper" / "brightness-1.0.0.lsb")
    opened = load(tmp_path / "deeper" / "brightness-1.0.0.lsb", expected_digest=ref.digest)
    assert opened.manifest == manifest
    assert opened.files == files
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["brightness-1.0.0.lsb"]


def test_members_are_sorted_with_fixed_times(tmp_path: Path) -> None:
    manifest, files = manifest_and_files()
    write(manifest, files, tmp_path / "a.lsb")
    with zipfile.ZipFile(tmp_path / "a.lsb") as archive:
        members = archive.infolist()
    assert [m.filename for m in members] == sorted(m.filename for m in members)
    assert {m.date_time for m in members} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(("content", "kind"), [(b"ab" * 50_000, zipfile.ZIP_BZIP2), (None, zipfile.ZIP_STORED)])
def test_members_are_compressed_only_where_that_saves(content: bytes | None, kind: int, tmp_path: Path) -> None:
    manifest, files = manifest_and_files()
    noise = np.random.default_rng(3).bytes(100_000)
    files = {**files, "more.bin": noise if content is None else content}
    listed = manifest.model_copy(update={"files": file_entries(files)})
    write(listed, files, tmp_path / "a.lsb")
    with zipfile.ZipFile(tmp_path / "a.lsb") as archive:
        assert archive.getinfo("more.bin").compress_type == kind
    assert load(tmp_path / "a.lsb").files == files


def test_a_file_that_the_manifest_does_not_list_is_refused() -> None:
    manifest, files = manifest_and_files()
    with pytest.raises(UpdateError, match="does not list"):
        pack(manifest, {**files, "more.bin": b"x"})


def test_a_file_that_differs_from_the_manifest_is_refused() -> None:
    manifest, files = manifest_and_files()
    with pytest.raises(UpdateError, match="not the file that the manifest lists"):
        pack(manifest, {**files, "model.onnx": files["model.onnx"] + b"x"})


def test_entries_state_digest_and_size() -> None:
    entry = file_entries({"a": b"abc"})["a"]
    assert entry.size_bytes == 3
    assert entry.digest == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_large_golden_pictures_are_packed_small_and_read_back() -> None:
    manifest, files = manifest_and_files()
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((3, 400, 700, 3), np.uint8))
    files = {**files, manifest.golden.inputs: buffer.getvalue()}
    manifest = manifest.model_copy(update={"files": file_entries(files)})
    data = pack(manifest, files)
    assert len(data) < 50_000
    assert parse(data).files[manifest.golden.inputs] == buffer.getvalue()
