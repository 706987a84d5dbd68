"""Which disks may be written: every reason to refuse one, and that a reason is never missed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from firmware_configs.disks import Disk, find_disk, read_disks, refusals
from firmware_configs.errors import RefusedError
from tests.firmware_configs.fakesys import FakeSystem


@pytest.fixture
def system(tmp_path: Path) -> FakeSystem:
    return FakeSystem(tmp_path)


def only(system: FakeSystem) -> Disk:
    (disk,) = read_disks(system.roots)
    return disk


def test_card_in_a_reader_may_be_written(system: FakeSystem) -> None:
    system.disk("sdb", gb=32, model="SD Card Reader", serial="1234", parts=2)
    disk = only(system)
    assert refusals(disk, need_bytes=4 * 10**9) == []
    assert (disk.node, disk.size_bytes, disk.model, disk.serial, disk.bus) == (
        "/dev/sdb",
        32_000_000_000,
        "SD Card Reader",
        "1234",
        "usb",
    )


def test_built_in_card_slot_that_does_not_say_removable_may_be_written(system: FakeSystem) -> None:
    system.disk("mmcblk0", bus="mmc0", removable=False)
    assert refusals(only(system)) == []


def test_mounted_partition_refuses_the_whole_disk(system: FakeSystem) -> None:
    system.disk("sdb", parts=2)
    system.mount("sdb2", "/media/card")
    assert refusals(only(system)) == ["mounted at /media/card"]


def test_disk_that_the_machine_runs_from_is_refused_even_if_it_can_be_taken_out(system: FakeSystem) -> None:
    system.disk("sda", parts=1)
    system.mount("sda1", "/")
    assert refusals(only(system), fixed=True) == ["this machine runs from it", "mounted at /"]


def test_disk_below_lvm_and_encryption_is_refused_for_what_is_mounted_from_there(system: FakeSystem) -> None:
    system.disk("sda", parts=1)
    system.stacked("dm-0", on="sda1")
    system.stacked("dm-1", on="dm-0")
    system.mount("dm-1", "/home")
    assert refusals(only(system), fixed=True) == ["this machine runs from it", "mounted at /home", "in use by dm-0"]


def test_swap_is_refused(system: FakeSystem) -> None:
    system.disk("sdb", parts=1)
    system.swap("sdb1")
    assert refusals(only(system)) == ["used as swap"]


def test_disk_under_a_running_raid_is_refused(system: FakeSystem) -> None:
    system.disk("sdb", parts=1)
    system.stacked("md0", on="sdb1")
    assert refusals(only(system)) == ["in use by md0"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("LVM2_member", "a member of LVM"), ("linux_raid_member", "a member of a RAID"), ("crypto_LUKS", "encrypted")],
)
def test_member_of_something_that_does_not_run_is_refused(system: FakeSystem, kind: str, words: str) -> None:
    system.disk("sdb", parts=1)
    system.content("sdb1", kind)
    assert refusals(only(system)) == [f"sdb1 is {words}"]


def test_write_protected_and_too_small_are_told_together(system: FakeSystem) -> None:
    system.disk("sdb", gb=2, read_only=True)
    assert refusals(only(system), need_bytes=4 * 10**9) == [
        "write-protected",
        "too small: 2.00 GB, and 4.00 GB are needed",
    ]


def test_disk_that_cannot_be_taken_out_needs_the_extra_word(system: FakeSystem) -> None:
    system.disk("nvme0n1", bus="nvme", removable=False)
    assert refusals(only(system)) == ["cannot be taken out (nvme): say --fixed-disk if it is meant"]
    assert refusals(only(system), fixed=True) == []


def test_disk_as_large_as_an_archive_needs_the_extra_word(system: FakeSystem) -> None:
    system.disk("sdb", gb=4000)
    assert refusals(only(system)) == ["4.0 TB is no card: say --fixed-disk if it is meant"]


@pytest.mark.parametrize("change", [{"serial": "S2"}, {"sequence": "8"}, {"model": "Backup"}, {"size_bytes": 1}])
def test_same_node_with_another_disk_behind_it_is_refused(system: FakeSystem, change: dict[str, Any]) -> None:
    system.disk("sdb")
    now = only(system)
    listed = dataclasses.replace(now, **change)
    assert refusals(now, listed=now) == []
    assert [text for text in refusals(now, listed=listed) if "another disk than before" in text]


def test_reader_without_a_card_and_made_up_devices_are_no_disks(system: FakeSystem) -> None:
    system.disk("sdb", gb=0)
    system.disk("zram0")
    assert read_disks(system.roots) == []


def test_partition_and_what_is_no_disk_are_refused_by_name(system: FakeSystem) -> None:
    system.disk("sdb", parts=1)
    with pytest.raises(RefusedError, match="is a partition"):
        find_disk("/dev/sdb1", system.roots)
    with pytest.raises(RefusedError, match="is no disk"):
        find_disk("/dev/sdz", system.roots)
    assert find_disk("/dev/sdb", system.roots).node == "/dev/sdb"


def test_disk_of_this_machine_that_root_lies_on_is_refused() -> None:
    mine = [disk for disk in read_disks() if "/" in disk.mounts]
    assert all("this machine runs from it" in refusals(disk, fixed=True) for disk in mine)
