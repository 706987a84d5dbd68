"""Writing a card: what lies on it, that it is the same every time, and what happens when the medium does not hold."""

import errno
import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_configs.commands import write as command
from firmware_configs.disks import Disk
from firmware_configs.receipt import load_receipt
from firmware_configs.writer import Medium
from tests.firmware_configs.cards import CLAIM, MISSING, WHY, Card, boot_volume, names_in, read_in, table

pytestmark = pytest.mark.skipif(bool(MISSING), reason=WHY)
MIB = 2**20


@pytest.fixture
def disk() -> Disk:
    return Disk("/dev/sdb", 4 * 10**9, "SD Card Reader", "S1", "usb", removable=True, read_only=False, sequence="7")


def test_card_holds_system_and_seed_and_other_tools_find_it_sound(card: Card, tmp_path: Path) -> None:
    to = tmp_path / "a.img"
    done = card.enrolling(to, "--receipt", str(tmp_path / "r.json"))
    assert done.exit_code == 0, done.output
    assert to.stat().st_size == 4 * 2**30
    assert to.stat().st_blocks * 512 < 64 * MIB  # only what is not zero
    assert [part["name"] for part in table(to)] == ["LINESIDE", "root-a", "root-b"]
    volume = boot_volume(to, tmp_path / "boot")
    subprocess.run(["/usr/sbin/fsck.fat", "-n", str(volume)], check=True, capture_output=True)
    assert names_in(volume) == [
        "EFI/BOOT/BOOTX64.EFI", "a/initrd", "a/vmlinuz", "lineside/box.toml", "lineside/brightness-1.0.0.lsb",
        "lineside/claim", "lineside/seed.json", "loader/entries/lineside-a+3.conf", "loader/loader.conf",
    ]  # fmt: skip
    root = table(to)[1]
    with to.open("rb") as file:
        file.seek(root["start"] * 512)
        assert file.read(9 * MIB + 4096) == (card.image / "root.squashfs").read_bytes()
    assert f"root=PARTUUID={root['uuid'].lower()}" in read_in(volume, "loader/entries/lineside-a+3.conf")


def test_claim_lies_in_its_own_file_and_neither_in_configuration_nor_receipt(card: Card, tmp_path: Path) -> None:
    to, receipt = tmp_path / "a.img", tmp_path / "r.json"
    (tmp_path / "token").write_text(f"{CLAIM}\n")
    done = card.write(to, "--cloud", "https://h:1", "--claim", f"@{tmp_path / 'token'}", "--receipt", str(receipt))
    assert done.exit_code == 0, done.output
    volume = boot_volume(to, tmp_path / "boot")
    assert read_in(volume, "lineside/claim").strip() == CLAIM
    for text in (read_in(volume, "lineside/box.toml"), read_in(volume, "lineside/seed.json"), receipt.read_text()):
        assert CLAIM not in text


def test_same_words_give_the_same_bytes_and_another_name_others(card: Card, tmp_path: Path) -> None:
    receipts = []
    for name, device in (("a", "box-1"), ("b", "box-1"), ("c", "box-2")):
        assert card.write(tmp_path / name, "--receipt", str(tmp_path / f"{name}.json"), name=device).exit_code == 0
        receipts.append(load_receipt(tmp_path / f"{name}.json"))
    first, again, other = receipts
    assert first.regions == again.regions
    assert (first.seed, first.machine_id) == (again.seed, again.machine_id)
    assert {r.name for r, o in zip(first.regions, other.regions, strict=True) if r != o} == {
        "boot", "table", "table (backup)",
    }  # fmt: skip
    assert first.machine_id != other.machine_id


def test_dry_run_says_every_range_and_writes_nothing(card: Card, tmp_path: Path) -> None:
    to = tmp_path / "a.img"
    done = card.write(to, "--dry-run")
    plan = json.loads(done.stdout)
    assert not to.exists()
    assert card.write(to, "--receipt", str(tmp_path / "r.json")).exit_code == 0
    said = {(row["from"], row["to"]) for row in plan["written"]}
    for region in load_receipt(tmp_path / "r.json").regions:
        assert (region.offset, region.offset + region.size) in said
    assert (0, MIB) in said
    assert (4 * 2**30 - MIB, 4 * 2**30) in said


def test_receipt_verifies_until_something_changes(card: Card, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from firmware_configs.__main__ import app

    to, receipt = tmp_path / "a.img", tmp_path / "r.json"
    assert card.write(to, "--receipt", str(receipt)).exit_code == 0

    def verified() -> int:
        return CliRunner().invoke(app, ["verify", str(receipt), "--to", str(to)]).exit_code

    assert verified() == 0
    _spoil(to, 3 * MIB)  # the boot partition changes when a device starts
    assert verified() == 1
    _spoil(to, table(to)[1]["start"] * 512 + 5 * MIB)
    assert verified() == 5


def test_file_that_is_there_is_replaced_only_if_that_is_said(card: Card, tmp_path: Path) -> None:
    to = tmp_path / "a.img"
    to.write_bytes(b"something dear")
    done = card.write(to)
    assert done.exit_code == 3
    assert to.read_bytes() == b"something dear"
    assert card.write(to, "--replace").exit_code == 0


def test_target_that_is_too_small_is_refused_with_what_is_needed(card: Card, tmp_path: Path) -> None:
    done = card.write(tmp_path / "a.img", "--size", "1G")
    assert done.exit_code == 3
    assert "4.00 GB are needed" in done.output


def test_name_below_dev_that_is_no_disk_is_never_made_a_file(card: Card) -> None:
    done = card.write(Path("/dev/lineside-no-disk"))
    assert done.exit_code == 3
    assert not Path("/dev/lineside-no-disk").exists()


def test_medium_that_is_full_is_told_and_has_no_table(card: Card, tmp_path: Path, failing: "Failing") -> None:
    failing.write_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), after=4 * MIB)
    to = tmp_path / "a.img"
    done = card.write(to)
    assert done.exit_code == 5
    assert "No space left" in done.output
    assert table(to) == []


def test_medium_that_is_pulled_out_is_told_and_has_no_table(card: Card, tmp_path: Path, failing: "Failing") -> None:
    to = tmp_path / "a.img"
    assert card.write(to).exit_code == 0  # an older system is on it
    failing.write_error(OSError(errno.ENODEV, os.strerror(errno.ENODEV)), after=6 * MIB)
    done = card.write(to, "--replace")
    assert done.exit_code == 5
    assert "pulled out" in done.output
    assert table(to) == []


def test_medium_that_gives_back_other_bytes_is_told_with_the_place(
    card: Card, tmp_path: Path, failing: "Failing"
) -> None:
    failing.forget_beyond(260 * MIB)  # a card that claims to be larger than it is
    to = tmp_path / "a.img"
    done = card.write(to)
    assert done.exit_code == 5
    assert "other bytes than were written, in root-a" in done.output
    assert table(to) == []


def test_write_that_is_killed_leaves_a_medium_without_partitions(
    card: Card, tmp_path: Path, failing: "Failing"
) -> None:
    to = tmp_path / "a.img"
    assert card.write(to).exit_code == 0
    for place in (2 * MIB, 5 * MIB, 11 * MIB):
        failing.write_error(KeyboardInterrupt(), after=place)
        assert card.write(to, "--replace").exit_code == 130
        assert table(to) == []


def test_mistakes_in_what_is_said_are_told_together(card: Card, tmp_path: Path) -> None:
    done = card.write(tmp_path / "a.img", "--cloud", "10.0.0.1", "--wifi", "x:y", "--site", 'a"b', name="Box 1")
    assert done.exit_code == 2
    for words in ("--device-name", "--cloud: expected an address", "--claim and --cloud", "--wifi", "--site"):
        assert words in done.output


def test_stations_that_the_daemon_would_refuse_are_refused_before_writing(card: Card, tmp_path: Path) -> None:
    (tmp_path / "stations.toml").write_text('[station.main]\nmodel = "m"\nsource = {kind = "folder", paht = "x"}\n')
    done = card.write(tmp_path / "a.img", "--stations", str(tmp_path / "stations.toml"))
    assert done.exit_code == 2
    assert "paht" in done.output
    assert not (tmp_path / "a.img").exists()


def test_disk_is_written_only_if_its_model_is_typed(card: Card, tmp_path: Path, disk: Disk, as_disk: Path) -> None:
    assert card.write(as_disk).exit_code == 3
    refused = card.write(as_disk, "--confirm", "y")
    assert refused.exit_code == 3
    assert "expected its model 'SD Card Reader'" in refused.output
    assert table(as_disk) == []
    assert card.write(as_disk, "--confirm", disk.model).exit_code == 0
    assert len(table(as_disk)) == 3


def _spoil(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xa5" * 512)


class Failing:
    """Lets the medium fail where a real one would: in the writing of a stretch of bytes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch, self._real = patch, Medium.write

    def write_error(self, error: BaseException, *, after: int) -> None:
        """Raise once so many bytes were written."""
        real, left = self._real, after

        def write(medium: Medium, content: bytes, offset: int) -> None:
            nonlocal left
            left -= len(content)
            if left < 0:
                raise error
            real(medium, content, offset)

        self._patch.setattr(Medium, "write", write)

    def forget_beyond(self, size: int) -> None:
        """Take no bytes beyond this place, and say that they were taken."""
        real = self._real

        def write(medium: Medium, content: bytes, offset: int) -> None:
            if offset < size:
                real(medium, content, offset)

        self._patch.setattr(Medium, "write", write)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


@pytest.fixture
def as_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, disk: Disk) -> Iterator[Path]:
    """A file of 4 GB that the command takes for a disk."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(disk.size_bytes)
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    monkeypatch.setattr(command, "find_disk", lambda _node: disk)
    monkeypatch.setattr(command, "remembered", lambda _node: None)
    monkeypatch.setattr(os, "O_EXCL", 0)
    yield path
