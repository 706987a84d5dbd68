"""Power is cut at every write, sync and rename of every way that a bundle can go: afterwards a good one decides.

What was not synced is lost, or torn, or there; names survive without their data. (A kill alone finds one of seven such
mistakes: the page cache survives it.)
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import files, slots
from edge.bundle import load, parse
from edge.slotfile import SlotFile
from edge.slots import Book
from edge.wire.base import BundleRef
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.faults.powercut import Disk, Recorder, recorded

VERSIONS = [bundle_bytes(version) for version in ("1.0.0", "1.1.0", "1.2.0")]
FIRST, SECOND, THIRD = (parse(content).ref for content in VERSIONS)
FATES = ("lost", "torn", "whole")


class Device:
    """Takes bundles in and through their states, and says what it has promised by now."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.slot_file = SlotFile(folder, "brightness", HeldClock())
        self.recorder = recorder

    def take(self, ref: BundleRef, rule: Callable[[Book, BundleRef, int], Book]) -> None:
        content = next(content for content in VERSIONS if parse(content).ref == ref)
        files.write_atomic(self.slot_file.bundle_path(ref), content)
        self.change(lambda book, now: rule(book, ref, now))

    def change(self, rule: Callable[[Book, int], Book]) -> None:
        # What is promised holds from the moment that `change` returns; what it will be may be there before.
        before = self.slot_file.book
        after = rule(before, HeldClock().now_ms())
        self.recorder.promised = (before, after)
        self.slot_file.change(rule)
        self.recorder.promised = (after, after)
        self.recorder.took_place()


def life(device: Device) -> None:
    """Every row of the table of transitions that a device with three versions can meet."""
    device.take(FIRST, slots.preloaded)
    device.take(SECOND, slots.downloaded)
    device.change(lambda book, now: slots.activated(book, SECOND, now))
    device.change(slots.withdrawn)
    device.change(lambda book, now: slots.activated(book, SECOND, now))
    device.change(slots.started)
    device.change(slots.served)
    device.take(THIRD, slots.downloaded)
    device.change(lambda book, now: slots.activated(book, THIRD, now))
    device.change(lambda book, now: slots.breached(book, THIRD, "crashed", now))
    device.slot_file.delete_unneeded([device.slot_file.book])
    device.change(lambda book, now: slots.activated(book, FIRST, now))
    device.change(lambda book, now: slots.breached(book, FIRST, "failed", now))


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Recorder]:
    folder = tmp_path / "data"
    folder.mkdir()
    with recorded(folder, monkeypatch) as recorder:
        life(Device(folder, recorder))
    return folder, recorder


def states(disk: Disk, rng: random.Random) -> list[dict[str, bytes]]:
    found: list[dict[str, bytes]] = []
    for names in range(len(disk.pending) + 1):
        for fate in FATES:
            state = disk.after_a_cut(rng, names=names, data=fate)
            if state not in found:
                found.append(state)
    return found


def restore(folder: Path, state: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    (folder / "bundles").mkdir(parents=True)
    for name, content in state.items():
        Path(name).write_bytes(content)


def test_after_a_cut_anywhere_a_good_bundle_decides_and_the_device_knows_which(
    recording: tuple[Path, Recorder],
) -> None:
    folder, recorder = recording
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    tried = 0
    for disk, promised in recorder.moments:
        for state in states(disk, rng):
            tried += 1
            restore(folder, state)
            slot_file = SlotFile(folder, "brightness", HeldClock())
            assert slot_file.problem is None
            assert promised is None or slot_file.book in promised, (slot_file.book, promised)
            serving = slot_file.book.serving
            if serving is not None:
                load(slot_file.bundle_path(serving.ref), expected_digest=serving.ref.digest)
            for digest in slot_file.book.needed:
                assert (folder / "bundles" / f"{digest}.lsb").exists()
    print(f"{tried} states after a cut, {len(recorder.moments)} moments")
    assert tried > 150


@pytest.mark.parametrize("forgotten", ["file", "folder"])
def test_writer_that_forgets_to_sync_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The disk above is of use only if it finds the mistakes that it is for."""

    def careless(path: Path, data: bytes, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    folder = tmp_path / "data"
    folder.mkdir()
    target = "_write_synced" if forgotten == "file" else "sync_directory"
    careless_one = careless if forgotten == "file" else lambda _path: None
    with monkeypatch.context() as forgetting:
        forgetting.setattr(files, target, careless_one)
        with recorded(folder, monkeypatch) as recorder:
            life(Device(folder, recorder))
    broken = 0
    for disk, promised in recorder.moments:
        for state in states(disk, random.Random(1)):
            restore(folder, state)
            slot_file = SlotFile(folder, "brightness", HeldClock())
            broken += slot_file.problem is not None or (promised is not None and slot_file.book not in promised)
    assert broken > 0
