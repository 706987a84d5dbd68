"""A disk that is full: parts take the safe action, they are counted, and all goes on when there is room again."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.camera import Camera
from tests.faults.plant import START_S, Device, as_root

DISK_BYTES = 6 * 2**20
PICTURES_PER_S = 40.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lineside-test", str(folder)]
    if not as_root() or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root and a kernel that lets containers mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("durability", ["power", "process"])
def test_full_disk_takes_the_safe_action_and_recovers_when_there_is_room(
    tmp_path: Path, small_disk: Path, rng: random.Random, durability: str
) -> None:
    device = Device(tmp_path / "box-1", data=small_disk / "data", durability=durability)
    ballast = small_disk / "ballast"
    with device, Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        device.wait_for(lambda: len(device.actions()) >= 30, START_S, "actions with room on the disk")
        pid = device.pid
        for _ in range(2):
            already = _safe(device)
            _fill(ballast)
            device.wait_for(lambda already=already: _safe(device) >= already + 20, START_S, "safe actions")
            recorded = len(device.decisions())
            ballast.unlink()
            device.wait_for(
                lambda recorded=recorded: len(device.decisions()) >= recorded + 30, START_S, "more decisions"
            )
            device.wait_for(lambda: _told(device) == _safe(device), START_S, "all safe actions to be told")
        camera.stop()
        device.wait_for(lambda: _finished(device, camera), START_S, "every picture to be acted on")
        assert device.pid == pid and device.running
        assert device.stop() == 0
    _check(device, camera)
    with device:
        device.wait_for(lambda: device.serving() == "1.0.0", START_S, "it to start again from the same disk")
        assert json.loads(device.status().stdout)["reported"]["slots"]


def test_device_that_starts_on_a_full_disk_begins_when_there_is_room(
    tmp_path: Path, small_disk: Path, rng: random.Random
) -> None:
    device = Device(tmp_path / "box-1", data=small_disk / "data")
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        device.wait_for(lambda: len(device.actions()) >= 10, START_S, "its first actions")
    ballast = small_disk / "ballast"
    _fill(ballast)
    with Camera(device.inbox, PICTURES_PER_S, rng), device:
        before = _safe(device)
        device.wait_for(lambda: _safe(device) > before, START_S, "safe actions after a start on a full disk")
        ballast.unlink()
        decided = len(device.decisions())
        device.wait_for(lambda: len(device.decisions()) > decided + 10, START_S, "decisions after there is room")


def test_device_killed_between_decision_and_outcome_starts_on_a_full_disk_and_tells_later(
    tmp_path: Path, small_disk: Path, rng: random.Random
) -> None:
    device = Device(tmp_path / "box-1", data=small_disk / "data")
    ballast = small_disk / "ballast"
    with Camera(device.inbox, PICTURES_PER_S, rng):
        for _ in range(100):  # one kill in ten or so falls between the two
            device.start()
            device.wait_for_action()
            device.kill()
            if device.rows("SELECT * FROM pending_actions"):
                break
        ((pending,),) = device.rows("SELECT seq FROM pending_actions")
        _fill(ballast)
        before = _safe(device)
        with device:
            device.wait_for(lambda: _safe(device) > before, START_S, "safe actions after a start on a full disk")
            ballast.unlink()
            device.wait_for(lambda: _told(device) > 0, START_S, "the safe actions to be told")
            assert device.stop() == 0
        device.start()
        device.wait_for_action()
        device.kill()
    states = {outcome["decision_seq"]: outcome["state"] for outcome in device.recorded("outcome")}
    assert states[pending] == "unknown"


def _fill(ballast: Path) -> None:
    """Take every byte that is free, and the last ones one by one."""
    with ballast.open("ab", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    os.fsync(file.fileno())
            except OSError:
                continue


def _safe(device: Device) -> int:
    """How many parts took the safe action because their decision could not be recorded."""
    return sum("not recorded" in action.get("why", "") for action in device.actions())


def _told(device: Device) -> int:
    events = device.events("decisions_unrecorded")
    assert all(event["severity"] == "alarm" for event in events)
    return sum(int(event["data"]["count"]) for event in events)


def _finished(device: Device, camera: Camera) -> bool:
    return len(device.actions()) >= len(camera.names)


def _check(device: Device, camera: Camera) -> None:
    """Each picture either has its decision on record, acted on once, or took the safe action unrecorded."""
    assert device.rows("PRAGMA integrity_check") == [("ok",)]
    (first, last, count), *_ = device.rows("SELECT min(seq), max(seq), count(*) FROM rows")
    assert (first, last - first + 1) == (1, count), "the sequence has holes"
    decisions = {decision["seq"]: decision for decision in device.decisions()}
    acted = [action for action in device.actions() if action["decision"] is not None]
    assert {action["decision"] for action in acted} == set(decisions)
    assert len(acted) == len(decisions)
    for action in acted:
        assert action["verdict"] == decisions[action["decision"]]["verdict"]
    recorded = {decision["input"]["name"] for decision in decisions.values()}
    assert len(recorded) == len(decisions)
    assert recorded <= set(camera.names)
    assert len(camera.names) - len(recorded) == _safe(device) == _told(device)
    print(f"{len(recorded)} recorded, {_safe(device)} took the safe action")
