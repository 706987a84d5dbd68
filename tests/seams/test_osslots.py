"""Every kind of slots for operating systems keeps the same promises, each with a machine that starts as its own does.

For `systemd-boot` the machine is a folder for the boot partition, files for the partitions and one for the kernel's
command line; what starts is chosen by the rule of systemd-boot, which the proof in QEMU runs against the real one.
"""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from edge.errors import ConfigError, StoreError
from edge.osslots import SLOTS, simulated, systemdboot
from edge.osslots.entries import Entry, system_words
from edge.osslots.interface import OsSlots, SlotName, Tries
from edge.osslots.loader import ENTRIES
from edge.wire.base import BundleRef
from edge.wire.osimage import INITRD, KERNEL
from tests.systems import PROFILE

SLOT_BYTES = 2**20
OLD = BundleRef(name="os-x86-box", version="1.0.0", digest="0a" * 32, size_bytes=1000, kind="os")
NEW = BundleRef(name="os-x86-box", version="1.1.0", digest="0b" * 32, size_bytes=1000, kind="os")


@dataclass
class Rig:
    """A machine of one kind."""

    boot: Path
    """Its boot partition."""
    slots: Callable[[], OsSlots]
    """Opens the slots, as a daemon that starts does."""
    switch_on: Callable[[], None]
    asked: Path
    """Is there once a restart was asked for."""
    well: Path
    """Is there once a start was said to be well."""
    state: Path


def _started(machine: Path) -> None:
    simulated.start(machine)


def simulated_rig(folder: Path) -> Rig:
    machine = folder / "machine"
    simulated.install(machine, OLD, slot_bytes=SLOT_BYTES)
    return Rig(
        machine / "boot",
        lambda: simulated.open_slots(folder, PROFILE, end=lambda: None),
        partial(_started, machine),
        machine / simulated.ASKED,
        machine / simulated.WELL,
        folder,
    )


def systemd_rig(folder: Path) -> Rig:
    boot, labels, uuids, asked = (folder / name for name in ("efi", "by-partlabel", "by-partuuid", "run"))
    for made in (boot / ENTRIES, boot / "a", labels, uuids, asked):
        made.mkdir(parents=True)
    for slot in ("a", "b"):
        (folder / f"sda{slot}").write_bytes(bytes(SLOT_BYTES))
        (labels / f"root-{slot}").symlink_to(folder / f"sda{slot}")
        (uuids / f"0000000{slot}").symlink_to(folder / f"sda{slot}")
    words = " ".join(["root=PARTUUID=0000000a", "ro", "quiet", *system_words("a", OLD)])
    entry = Entry("a", Tries(3), 1, words)
    (boot / ENTRIES / entry.name).write_text(entry.text)
    (boot / "a" / KERNEL).write_bytes(b"kernel")
    (boot / "a" / INITRD).write_bytes(b"initrd")
    board = systemdboot.SystemdBoard(labels, uuids, folder / "cmdline", asked)

    def switch_on() -> None:
        for path in asked.iterdir():
            path.unlink()
        machine = folder / "firmware"  # the simulated one's rule, on this boot partition
        machine.mkdir(exist_ok=True)
        if not (machine / "boot").exists():
            (machine / "boot").symlink_to(boot)
        (folder / "cmdline").write_text(f"initrd=\\a\\initrd {simulated.start(machine)}\n")

    switch_on()
    state = folder / "data/os"
    return Rig(
        boot,
        lambda: systemdboot.open_slots(state, PROFILE, boot=boot, board=board),
        switch_on,
        asked / systemdboot.RESTART,
        asked / systemdboot.WELL,
        state,
    )


RIGS = {"simulated": simulated_rig, "systemd-boot": systemd_rig}


@pytest.fixture(params=sorted(SLOTS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    made = RIGS[request.param](tmp_path)
    made.slots().confirm()
    return made


def put(slots: OsSlots, ref: BundleRef = NEW, content: bytes = b"new root") -> None:
    """Put a system into the other slot and make it startable."""
    slots.close_off("b" if slots.running.slot == "a" else "a")
    with slots.open_other(writable=True) as device:
        device.write(content)
    for name in (KERNEL, INITRD):
        slots.put_boot_file(name, io.BytesIO(name.encode()).read)
    slots.arm(ref, 3)


def test_every_kind_of_slots_is_tried_here() -> None:
    assert set(RIGS) == set(SLOTS)


def test_machine_that_was_set_up_runs_slot_a_and_says_which_system_it_is(rig: Rig) -> None:
    slots = rig.slots()
    assert (slots.running.slot, slots.running.ref) == ("a", OLD)
    assert slots.tries("a") == Tries(None)
    assert slots.tries("b") is None and slots.startable("b") is None
    assert slots.capacity_bytes == SLOT_BYTES


def test_armed_system_is_started_with_its_own_root_and_everything_else_as_before(rig: Rig) -> None:
    put(rig.slots())
    assert rig.slots().startable("b") == NEW
    rig.switch_on()
    slots = rig.slots()
    assert (slots.running.slot, slots.running.ref) == ("b", NEW)
    assert slots.tries("b") == Tries(2, 1)
    (entry,) = (path for path in (rig.boot / ENTRIES).glob("lineside-b*"))
    options = entry.read_text().split("options ")[1].split()
    assert "quiet" in options and len([word for word in options if word.startswith("root=")]) == 1
    assert not any(word.startswith("root=") and word.endswith("a") for word in options)


def test_system_that_is_never_confirmed_gives_way_to_the_one_before_it(rig: Rig) -> None:
    put(rig.slots())
    for done in (1, 2, 3):
        rig.switch_on()
        assert rig.slots().running.ref == NEW
        assert rig.slots().tries("b") == Tries(3 - done, done)
    rig.switch_on()
    slots = rig.slots()
    assert slots.running.ref == OLD
    tries = slots.tries("b")
    assert tries is not None and tries.exhausted and tries.done == 3


def test_confirmed_system_is_started_from_then_on(rig: Rig) -> None:
    put(rig.slots())
    rig.switch_on()
    rig.slots().confirm()
    for _ in range(5):
        rig.switch_on()
    assert rig.slots().running.ref == NEW
    assert rig.slots().tries("b") == Tries(None)
    assert rig.slots().startable("a") == OLD


def test_way_back_to_the_one_before_needs_no_copy(rig: Rig) -> None:
    put(rig.slots())
    rig.switch_on()
    slots = rig.slots()
    slots.confirm()
    slots.arm(OLD, 3)
    rig.switch_on()
    assert rig.slots().running.ref == OLD


def test_slot_that_could_be_started_is_not_written(rig: Rig) -> None:
    slots = rig.slots()
    put(slots)
    with pytest.raises(StoreError, match="could be started"), slots.open_other(writable=True):
        pass
    with pytest.raises(StoreError, match="could be started"):
        slots.put_boot_file(KERNEL, io.BytesIO(b"other").read)
    slots.close_off("b")
    rig.switch_on()
    assert rig.slots().running.ref == OLD


def test_slot_without_a_kernel_cannot_be_armed(rig: Rig) -> None:
    with pytest.raises(StoreError, match="no vmlinuz and no initrd"):
        rig.slots().arm(NEW, 3)
    assert rig.slots().tries("b") is None


def test_last_system_that_can_be_started_is_not_closed_off(rig: Rig) -> None:
    with pytest.raises(StoreError, match="not left"):
        rig.slots().close_off("a")
    rig.switch_on()


def test_other_slot_gives_back_what_was_written(rig: Rig) -> None:
    slots = rig.slots()
    put(slots, content=b"x" * 1000)
    with slots.open_other(writable=False) as device:
        assert device.read(1001) == b"x" * 1000 + b"\0"
    with slots.boot_file(INITRD) as file:
        assert file.read() == b"initrd"


@pytest.mark.parametrize("cut", [0, 40, 80])
def test_entry_that_a_power_cut_has_torn_is_not_started(rig: Rig, cut: int) -> None:
    put(rig.slots())
    (entry,) = (rig.boot / ENTRIES).glob("lineside-b*")
    entry.write_bytes(entry.read_bytes()[:cut])
    assert rig.slots().tries("b") is None
    rig.switch_on()
    assert rig.slots().running.ref == OLD
    put(rig.slots())
    rig.switch_on()
    assert rig.slots().running.ref == NEW


def test_confirmed_entry_counts_where_a_cut_has_left_both(rig: Rig) -> None:
    put(rig.slots())
    rig.switch_on()
    (entry,) = (rig.boot / ENTRIES).glob("lineside-b*")
    before = entry.read_text()
    rig.slots().confirm()
    entry.write_text(before)
    assert rig.slots().tries("b") == Tries(None)


def test_renamed_file_is_synced_before_its_folder_because_fat_keeps_its_size_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    slots = rig.slots()
    for name in (INITRD, KERNEL):
        slots.put_boot_file(name, io.BytesIO(b"kernel").read)
        assert synced[-2:] == [name, "b"]
    slots.arm(NEW, 3)
    assert synced[-2:] == ["lineside-b+3.conf", "entries"]
    rig.switch_on()
    rig.slots().confirm()
    assert synced[-2:] == ["lineside-b.conf", "entries"]


def test_restart_and_well_are_said_where_the_machine_looks(rig: Rig) -> None:
    slots = rig.slots()
    assert not rig.asked.exists() and not rig.well.exists()
    slots.say_well()
    slots.restart()
    assert rig.asked.exists() and rig.well.exists()
    rig.switch_on()
    assert not rig.asked.exists() and not rig.well.exists()


def test_watch_gets_slot_and_deadline_and_what_it_noted_is_read_until_the_next(rig: Rig) -> None:
    slots = rig.slots()
    slots.watch_trial(90.0)
    assert (rig.state / "trial").read_text() == "b 90\n"
    (rig.state / "why").write_text("the daemon ended 5 times;  it said:\nno such module\n")
    assert slots.why_left() == "the daemon ended 5 times; it said: no such module"
    slots.watch_trial(None)
    assert slots.why_left() == "" and not (rig.state / "trial").exists()
    slots.watch_trial(None)


def test_device_without_partitions_or_without_words_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemdboot, "APPEAR_S", 0)
    with pytest.raises(ConfigError, match="root-a is missing"):
        systemdboot.open_slots(tmp_path, PROFILE, boot=tmp_path, board=systemdboot.SystemdBoard(labels=tmp_path))
    rig = systemd_rig(tmp_path)
    (tmp_path / "cmdline").write_text("root=/dev/sda2 ro\n")
    with pytest.raises(ConfigError, match="does not say which system runs"):
        rig.slots()


@pytest.mark.parametrize("slot", ["a", "b"])
def test_names_of_entries_are_those_of_the_boot_loader_specification(slot: SlotName) -> None:
    names = {Entry(slot, tries, 1, "ro").name for tries in (Tries(None), Tries(3), Tries(2, 1), Tries(0, 3))}
    assert names == {f"lineside-{slot}{count}.conf" for count in ("", "+3", "+2-1", "+0-3")}
