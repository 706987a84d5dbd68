"""`lineside-flash list`: what a person and a machine read, and that `write` remembers what was shown."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from firmware_configs.__main__ import app
from firmware_configs.commands import list as command
from firmware_configs.disks import Disk, read_disks, refusals
from tests.firmware_configs.fakesys import FakeSystem


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Disk]:
    system = FakeSystem(tmp_path / "fake")
    system.disk("sda", gb=500, model="Archive", bus="ata1", removable=False, parts=1)
    system.mount("sda1", "/")
    system.disk("sdb", gb=32, model="SD Card Reader", serial="77")
    found = read_disks(system.roots)
    monkeypatch.setenv("LINESIDE_FLASH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(command, "read_disks", lambda: found)
    return found


def test_list_says_of_every_disk_whether_it_may_be_written(disks: list[Disk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = CliRunner().invoke(app, ["list"]).stdout
    lines = {line.split("│")[1].strip(): line for line in shown.splitlines() if "/dev/" in line}
    assert "this machine runs from it" in lines["/dev/sda"]
    assert "yes" in lines["/dev/sdb"]
    assert "x86-box" in shown


def test_machines_read_disks_with_reasons_and_profiles_with_images(disks: list[Disk]) -> None:
    answer = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    refused = {disk["node"]: disk["refused"] for disk in answer["disks"]}
    assert refused["/dev/sdb"] == []
    assert "mounted at /" in refused["/dev/sda"]
    assert {profile["name"]: profile["image"] for profile in answer["profiles"]}["rpi4"] is None


def test_card_that_was_changed_since_the_list_is_noticed(disks: list[Disk]) -> None:
    CliRunner().invoke(app, ["list"])
    seen = command.remembered("/dev/sdb")
    assert seen == disks[1]
    other = Disk(**{**vars(disks[1]), "serial": "78"})
    assert refusals(other, listed=seen) == ["another disk than before: it was SD Card Reader 77"]
    assert command.remembered("/dev/sdz") is None
