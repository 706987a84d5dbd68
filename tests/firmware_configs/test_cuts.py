"""Power cuts by replay: what a disk may hold after one, and what the judge finds of it.

The recorded ext4 is a kernel's own work (`record_ext4.py`); `python -m firmware_configs.prove cuts` records a device.
"""

import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_configs.image.debian import load_image
from firmware_configs.pack import ref_of
from firmware_configs.prove import cuts
from firmware_configs.prove.crash import Replay, cut_at, flushed_before
from firmware_configs.prove.recording import Recording, Seen
from firmware_configs.prove.states import Promised, judge, partitions
from firmware_configs.prove.writelog import FLUSH, FUA, SECTOR, Entry, read_log, write_log
from firmware_configs.sparse import copy_sparse
from tests.firmware_configs.cards import MISSING, PATH, WHY, Card

RECORDED = Path(__file__).parent / "ext4.tar.xz"
STATES = 20
SECTORS = 16
WRITES = st.lists(
    st.tuples(
        st.integers(0, SECTORS - 3), st.integers(0, 3), st.sampled_from([0, 0, 0, FLUSH, FUA]), st.integers(1, 255)
    ),
    min_size=1,
    max_size=12,
)
LACKING = [tool for tool in ("e2fsck", "debugfs") if shutil.which(tool, path=PATH) is None]
needs_tools = pytest.mark.skipif(bool(MISSING or LACKING), reason=f"{WHY} e2fsprogs")


def _log(folder: Path, writes: list[tuple[int, int, int, int]]) -> Path:
    """Write a log in which each request has bytes of its own; a flush has none."""
    requests = [
        (at * SECTOR, b"" if flags == FLUSH else bytes([mark]) * (count * SECTOR), flags)
        for at, count, flags, mark in writes
        if count or flags
    ]
    path = folder / "writes.log"
    write_log(path, requests)
    return path


@settings(max_examples=60)
@given(writes=WRITES, seed=st.integers(0, 9))
def test_any_cut_keeps_what_was_flushed_and_takes_nothing_from_nowhere(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, int, int, int]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    base, log = folder / "base", _log(folder, writes)
    base.write_bytes(bytes(SECTORS * SECTOR))
    entries, bytes_of = read_log(log), log.read_bytes()
    with Replay(base, log, entries, folder / "disk") as replay:
        for point in range(1, len(entries) + 1):
            flushed = flushed_before(entries, point)
            durable = _replayed(entries[:flushed], bytes_of)
            with replay.state(cut_at(entries, point, seed)) as disk:
                state = disk.read_bytes()
            possible = _possible(durable, entries[flushed:point], bytes_of)
            for sector, allowed in enumerate(possible):
                assert state[sector * SECTOR : (sector + 1) * SECTOR] in allowed
            assert (folder / "disk").read_bytes() == durable, "the state was not taken off again"
        everything = replace(cut_at(entries, len(entries), seed), flushed=len(entries), kept=())
        with replay.state(everything) as disk:
            assert disk.read_bytes() == _replayed(entries, bytes_of)


def test_a_write_marked_as_durable_is_there_once_another_came_after_it(tmp_path: Path) -> None:
    entries = read_log(_log(tmp_path, [(0, 1, FUA, 1), (1, 1, 0, 2)]))
    kept = [{piece.offset for piece in cut_at(entries, 2, seed).kept} for seed in range(50)]
    assert all(0 in offsets for offsets in kept)
    assert any(SECTOR not in offsets for offsets in kept)
    assert any(not cut_at(entries, 1, seed).kept for seed in range(50)), "the last one may not have happened yet"


def test_same_seed_and_point_give_the_same_cut_and_others_differ(tmp_path: Path) -> None:
    entries = read_log(_log(tmp_path, [(at, 3, 0, at + 1) for at in range(10)]))
    assert cut_at(entries, 9, 1) == cut_at(entries, 9, 1)
    assert len({cut_at(entries, 9, seed) for seed in range(20)}) > 5


@pytest.mark.skipif(shutil.which("qemu-io") is None, reason="apt-get install qemu-utils")
def test_log_that_qemu_keeps_is_read_as_what_was_written(tmp_path: Path) -> None:
    disk, log = tmp_path / "disk", tmp_path / "writes.log"
    disk.write_bytes(bytes(2**20))
    log.touch()
    way = f"driver=blklogwrites,file.driver=file,file.filename={disk},log.driver=file,log.filename={log}"
    words = ["-c", "write -P 7 4096 1024", "-c", "flush", "-c", "write -P 9 512 512"]
    subprocess.run(["qemu-io", "--image-opts", f"{way},log-sector-size=512", *words], check=True, capture_output=True)
    entries = read_log(log)
    assert [(e.offset, e.size) for e in entries if e.writes] == [(4096, 1024), (512, 512)]
    between = entries.index(next(e for e in entries if e.offset == 4096))
    assert entries[between + 1].flushes
    held = log.read_bytes()
    assert held[entries[between].data_at :][:1024] == b"\x07" * 1024


def test_log_that_was_cut_short_is_read_up_to_its_last_whole_entry(tmp_path: Path) -> None:
    log = _log(tmp_path, [(0, 1, 0, 1), (1, 2, 0, 2)])
    os.truncate(log, log.stat().st_size - SECTOR)
    assert len(read_log(log)) == 1


@pytest.fixture(scope="module")
def recording(image_folder: Path) -> Iterator[Recording]:
    """A card, and the recorded ext4 as its data partition; on a disk, see `tests/conftest.py`."""
    with TemporaryDirectory(prefix="lineside-") as folder:
        yield _recorded(image_folder, Path(folder))


def _recorded(image_folder: Path, folder: Path) -> Recording:
    with tarfile.open(RECORDED) as archive:
        archive.extractall(folder / "ext4", filter="data")
    disk, card = folder / "base.img", Card(image_folder, folder)
    assert card.write(disk).exit_code == 0
    size = (folder / "ext4" / "base.img").stat().st_size
    environment = {**os.environ, "PATH": PATH}
    words = f"size={size // 512}, name=lineside-data"
    add = ["sfdisk", "--quiet", "--append", str(disk)]
    subprocess.run(add, input=words, text=True, check=True, capture_output=True, env=environment)
    start = partitions(disk)["lineside-data"].start
    with disk.open("r+b") as file:
        file.seek(start)
        file.write((folder / "ext4" / "base.img").read_bytes())
    manifest = load_image(image_folder)
    systems = {ref_of(manifest, image_folder, manifest.version).digest: manifest.files}
    log = _moved(folder / "ext4" / "writes.log", start, folder / "writes.log")
    seen = tuple(Seen(**item) for item in json.loads((folder / "ext4" / "seen.json").read_text()))
    return Recording(disk, log, seen, systems, "box-1")


@needs_tools
def test_recorded_ext4_cut_anywhere_is_sound_and_keeps_what_was_promised(recording: Recording, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    story = cuts.cuts(recording, tmp_path, STATES, seed, print)
    assert story.faults == []
    assert story.states >= STATES
    assert story.dropped_writes > 0
    assert story.most_decisions >= 10


@needs_tools
def test_medium_that_lies_about_its_flushes_is_found_out(recording: Recording, tmp_path: Path) -> None:
    story = cuts.cuts(recording, tmp_path, STATES // 2, 3, print, lying_flushes=True)
    assert story.faulty > 0
    assert any("gone" in problem for fault in story.faults for problem in fault.problems)


@needs_tools
@pytest.mark.parametrize(
    ("part", "words"),
    [("table", "no GPT"), ("LINESIDE", "no entry"), ("root-a", "root is not whole"), ("lineside-data", "e2fsck")],
)
def test_part_of_a_disk_that_was_overwritten_is_named(
    recording: Recording, tmp_path: Path, part: str, words: str
) -> None:
    disk = tmp_path / "disk.img"
    copy_sparse(recording.base, disk)
    parts = partitions(disk)
    places = [(0, 2**20), (disk.stat().st_size - 2**20, 2**20)]
    if part != "table":
        places = [(parts[part].start, 3 * 2**20)]
    with disk.open("r+b") as file:
        for start, size in places:
            file.seek(start)
            file.write(b"\xa5" * size)
    verdict = judge(disk, recording.systems, Promised(), tmp_path / "work")
    assert any(words in problem for problem in verdict.problems), verdict


@needs_tools
def test_promise_that_is_not_kept_is_told(recording: Recording, tmp_path: Path) -> None:
    promised = Promised(decided=True, decisions=frozenset({("a", 7)}), confirmed="9.0.0")
    told = "; ".join(judge(recording.base, recording.systems, promised, tmp_path).problems)
    assert "9.0.0 was confirmed" in told
    assert "there is no record" in told


def test_promise_holds_from_where_it_was_seen_on(recording: Recording) -> None:
    first = next(seen for seen in recording.seen if seen.what == "stored")
    assert recording.promised(first.at - 1).decisions == frozenset()
    assert tuple(first.value) in recording.promised(first.at).decisions


def _moved(source: Path, by: int, target: Path) -> Path:
    """Copy a log with every request further back on the disk; its entries keep their places."""
    held = source.read_bytes()
    requests = [(e.offset + by, held[e.data_at : e.data_at + e.size], e.flags) for e in read_log(source)]
    write_log(target, requests)
    return target


def _replayed(entries: list[Entry], log: bytes) -> bytes:
    disk = bytearray(SECTORS * SECTOR)
    for entry in entries:
        if entry.writes:
            disk[entry.offset : entry.offset + entry.size] = log[entry.data_at : entry.data_at + entry.size]
    return bytes(disk)


def _possible(durable: bytes, pending: list[Entry], log: bytes) -> list[set[bytes]]:
    """Return, for each sector, what it may hold."""
    possible = [{durable[at : at + SECTOR]} for at in range(0, len(durable), SECTOR)]
    for entry in pending:
        for at in range(0, entry.size if entry.writes else 0, SECTOR):
            possible[(entry.offset + at) // SECTOR].add(log[entry.data_at + at : entry.data_at + at + SECTOR])
    return possible
