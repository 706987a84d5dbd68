"""Power is cut at every write, sync and rename of an update of the operating system: it always ends well by itself.

The system comes from a real server in several connections, into the slot, onto trial, and to the end of its probation.
Whatever a cut leaves of book, notes and boot partition, and of the slot beyond what was noted as synced, the machine
starts a whole system, and the same wish, told again, brings the new one.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.osslots import simulated
from edge.osslots.loader import read_entries
from edge.osupdate import SETTLE_S
from tests.faults.powercut import SECTOR, recorded, restore, states
from tests.osbox import FLASHED, RULES, SLOT_BYTES, Box
from tests.systems import System, system
from tests.webserver import WebServer

SUBFOLDERS = ("os", "os/machine", "os/machine/boot/a", "os/machine/boot/b", "os/machine/boot/loader/entries")
SYNC_BYTES = 8 * SECTOR
STEP_S = 20


@pytest.fixture
def new() -> System:
    return system("1.1.0", root_bytes=20_000, kernel=b"kernel " * 200)


@pytest.fixture
def server(new: System) -> Iterator[WebServer]:
    with WebServer() as made:
        made.files[new.path] = new.data
        made.behaviour.cut_after_bytes = 1 + len(new.data) // 3
        yield made


def test_update_of_the_system_whose_power_is_cut_anywhere_ends_with_the_new_one_in_service(
    tmp_path: Path, server: WebServer, new: System, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    monkeypatch.setattr("edge.osfetch.SYNC_BYTES", SYNC_BYTES)
    folder, disk = tmp_path / "data", tmp_path / "disk"
    disk.mkdir()
    _restore(folder, disk, {}, b"")
    with recorded(folder, monkeypatch) as recorder:
        box = Box(folder, server.url, tmp_path / "record.sqlite")
        box.passes(1)
        recorder.promised = "set up"
        _to_the_end(box, new)
        recorder.promised = "in service"
        recorder.took_place()
        box.store.close()
    server.behaviour.cut_after_bytes = None
    monkeypatch.setattr("edge.osfetch.SYNC_BYTES", SYNC_BYTES)
    seen: list[tuple[dict[str, bytes], bytes]] = []
    for moment, promised in recorder.moments:
        for state in states(moment, rng):
            slot = _slot_after_a_cut(folder, state, new, rng)
            if promised is None or any(state == other for other, _ in seen):
                continue
            seen.append((state, slot))
            _restore(folder, disk, state, slot)
            _ends_well(folder, server, new, promised, tmp_path / f"record-{len(seen)}.sqlite")
    print(f"{len(seen)} distinct states after a cut, {len(recorder.moments)} moments")
    assert len(recorder.moments) > 80 and len(seen) >= 60
    assert {0 < len(slot.rstrip(b"\0")) < len(new.data) for _, slot in seen} == {False, True}


def _to_the_end(box: Box, new: System) -> None:
    """Update without a break, over several connections."""
    box.sign(new)
    box.want(new.ref)
    box.passes(RULES.quiet.idle_s + SETTLE_S, STEP_S)
    box.power_on()
    assert box.running == "1.1.0"
    box.passes(RULES.probation_s + 1, STEP_S)
    assert box.book.current == new.ref.digest


def _ends_well(folder: Path, server: WebServer, new: System, promised: str, record: Path) -> None:
    """A whole system starts at once; told the wish again, the device runs the new one, and remembers the old."""
    assert read_entries(folder / "os/machine/boot")
    simulated.start(folder / "os/machine")
    box = Box(folder, server.url, record)
    assert box.running in ("1.0.0", "1.1.0")
    if box.running == "1.1.0":  # nothing but a proven one is ever started
        assert (folder / "os/machine/root-b").read_bytes()[: len(new.data)] == new.data
    if promised == "in service":
        assert box.running == "1.1.0" and box.book.current == new.ref.digest
    box.sign(new)
    for _ in range(3):
        box.passes(RULES.probation_s + 1, STEP_S)
        if box.book.current == new.ref.digest and box.running == "1.1.0":
            break
        box.want(new.ref)
        box.passes(RULES.quiet.idle_s + SETTLE_S + 1, STEP_S)
        box.power_on()
    assert (box.running, box.book.current, box.book.previous) == ("1.1.0", new.ref.digest, FLASHED.digest)
    assert box.refused == [] and "os_failed" not in box.names()
    box.power_on()
    assert box.running == "1.1.0"
    box.store.close()


def _slot_after_a_cut(folder: Path, state: dict[str, bytes], new: System, rng: random.Random) -> bytes:
    """Return what the slot holds: all that was noted as synced, and of what came after it some sectors or none."""
    note = state.get(str(folder / "os/download.json"), b"")
    noted = int(json.loads(note)["value"]["bytes"]) if note else 0
    until = min(len(new.data), noted + rng.choice((0, SYNC_BYTES)))
    rest = bytearray(new.data[noted:until])
    for start in range(0, len(rest), SECTOR):
        if rng.random() < 0.5:
            rest[start : start + SECTOR] = bytes(len(rest[start : start + SECTOR]))
    return new.data[:noted] + bytes(rest)


def _restore(folder: Path, disk: Path, state: dict[str, bytes], slot: bytes) -> None:
    """Make the device's folder hold these files, and its second root these bytes; the roots lie on another disk."""
    folder.mkdir(exist_ok=True)
    roots = [str(folder / "os/machine" / f"root-{slot}") for slot in ("a", "b")]
    restore(folder, {name: data for name, data in state.items() if name not in roots}, *SUBFOLDERS)
    for name, content in (("root-a", b""), ("root-b", slot)):
        (disk / name).write_bytes(content.ljust(SLOT_BYTES, b"\0"))
        (folder / "os/machine" / name).symlink_to(disk / name)
