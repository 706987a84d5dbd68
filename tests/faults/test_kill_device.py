"""kill -9 of a device at random moments under traffic: nothing that its actuator saw is missing or there twice."""

import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.faults.camera import Camera
from tests.faults.plant import START_S, Cloud, Device, gone
from tests.faults.sameness import assert_same_in_cloud
from tests.long import rounds
from tests.waiting import wait_until

PICTURES_PER_S = 50.0
LONGEST_LIFE_S = 0.15
"""After its first action of a start a device lives for up to so long."""
DRAIN_S = 120.0


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize(("durability", "kills"), [("process", rounds(15, 50)), ("power", rounds(5, 12))])
def test_device_killed_under_traffic_loses_and_repeats_nothing(
    tmp_path: Path, cloud: Cloud, rng: random.Random, durability: str, kills: int
) -> None:
    """Fifteen and five kills, fifty and twelve in the long form; one in five falls into the start."""
    device = Device(
        tmp_path / "box-1", cloud_url=cloud.url, claim=cloud.claim("box-1"), root=cloud.root, durability=durability
    )
    began_s = time.monotonic()
    with Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        for number in range(kills):
            _start_and_kill(device, rng, during_start=number % 5 == 4)
    print(f"{kills} kills in {time.monotonic() - began_s:.1f} s, {len(camera.names)} pictures")
    device.drain(DRAIN_S)
    print(f"drained after {time.monotonic() - began_s:.1f} s")
    _check_record(device, camera.names)
    _check_actions(device, kills)
    assert_same_in_cloud(device, cloud)


def _start_and_kill(device: Device, rng: random.Random, *, during_start: bool) -> None:
    device.start()
    if during_start:
        time.sleep(rng.uniform(0, 0.8))
    else:
        device.wait_for_action()
        time.sleep(rng.uniform(0, LONGEST_LIFE_S))
    children: list[psutil.Process] = device.children()
    device.kill()
    for child in children:
        wait_until(lambda pid=child.pid: gone(pid), START_S, "the inference process to end with its daemon")  # type: ignore[misc]


def _check_record(device: Device, names: list[str]) -> None:
    """Every picture decided once, no hole in the sequence, one outcome for each decision that asked for an action."""
    assert device.rows("PRAGMA integrity_check") == [("ok",)]
    (first, last, count), *_ = device.rows("SELECT min(seq), max(seq), count(*) FROM rows")
    assert (first, last - first + 1) == (1, count), "the sequence has holes"
    decisions = device.decisions()
    times = Counter(decision["input"]["name"] for decision in decisions)
    assert {name: n for name, n in times.items() if n != 1} == {}, "decided more than once"
    assert set(times) == set(names), "never decided"
    asked = [decision["seq"] for decision in decisions if decision["action"] != "none"]
    assert sorted(outcome["decision_seq"] for outcome in device.recorded("outcome")) == asked
    assert device.rows("SELECT * FROM pending_actions") == []


def _check_actions(device: Device, kills: int) -> None:
    """What the actuator saw is on record with the same content; what it may not have seen is told as unknown."""
    by_seq = {decision["seq"]: decision for decision in device.decisions()}
    states = {outcome["decision_seq"]: outcome["state"] for outcome in device.recorded("outcome")}
    actions = device.actions()
    acted = [action["decision"] for action in actions]
    assert len(set(acted)) == len(acted), "acted on twice"
    for action in actions:
        decision = by_seq[action["decision"]]
        assert {key: action[key] for key in ("boot_id", "station", "verdict", "action")} == {
            key: decision[key] for key in ("boot_id", "station", "verdict", "action")
        }
    unknown = {seq for seq, state in states.items() if state == "unknown"}
    assert set(states) - set(acted) <= unknown, "told as done, and the actuator never moved"
    assert len(unknown) <= kills
    print(f"{len(acted)} actions, {len(unknown)} outcomes unknown, {len(set(states) - set(acted))} never acted on")
