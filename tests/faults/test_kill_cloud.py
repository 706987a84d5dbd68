"""kill -9 of the control plane at random moments while devices send: everything is there in the end, each once."""

import hashlib
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import bundle_bytes
from tests.faults.camera import Camera, large_picture, put
from tests.faults.plant import Cloud, Device, gone
from tests.faults.sameness import assert_same_in_cloud, stored_in_cloud
from tests.long import rounds
from tests.waiting import wait_until

KILLS = rounds(8, 20)
PICTURES_PER_S = 20.0
PROGRESS_S = 150.0
"""Longest wait for anything: what takes a second on a quiet machine may starve on a busy one."""
LONGEST_LIFE_S = 0.3
"""After something new was stored the control plane lives for up to so long."""
STAGES = """
absent_after_s = 600

[[stages]]
kind = "canary"
devices = 1
min_s = 4
max_s = 600

[[stages]]
kind = "ramp"
share = 1.0
min_s = 4
max_s = 600
"""
"""Seconds that the control plane must live through in pieces, so that kills fall into every stage."""


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_control_plane_killed_while_devices_send_has_everything_once(
    tmp_path: Path, cloud: Cloud, rng: random.Random
) -> None:
    """Eight kills, twenty in the long form: both spread over all stages of a rollout, which live through them."""
    devices = [_device(tmp_path, name, cloud) for name in ("box-1", "box-2")]
    cloud.publish(bundle_bytes("1.1.0"), tmp_path / "new.lsb")
    cameras = [Camera(device.inbox, PICTURES_PER_S, rng) for device in devices]
    began_s = time.monotonic()
    with devices[0], devices[1], cameras[0], cameras[1]:
        _wait_for_progress(devices, cloud)
        rollout = cloud.roll_out("1.1.0", [device.name for device in devices], STAGES)
        for _ in range(KILLS):
            _kill_and_start(cloud, devices, rng)
        print(f"{KILLS} kills in {time.monotonic() - began_s:.1f} s")
        # Pictures go on coming: a trial that sees none never ends.
        wait_until(lambda: cloud.rollout(rollout)["status"] == "done", PROGRESS_S, "the rollout to be done")
        for camera in cameras:
            camera.stop()
        assert [device.serving() for device in devices] == ["1.1.0", "1.1.0"]
        assert [device.stop() for device in devices] == [0, 0]
    for device, camera in zip(devices, cameras, strict=True):
        device.drain(PROGRESS_S)
        assert {decision["input"]["name"] for decision in device.decisions()} == set(camera.names)
        assert_same_in_cloud(device, cloud)
    steps = [entry["step"] for entry in cloud.rollout(rollout)["log"]]
    assert steps.count("stage_entered") == 2 and steps.count("finished") == 1, steps


def test_control_plane_killed_while_inputs_come_in_has_each_of_them_whole(
    tmp_path: Path, cloud: Cloud, rng: random.Random
) -> None:
    device = _device(tmp_path, "box-1", cloud)
    pictures = {f"{number:03d}.png": large_picture(rng) for number in range(40)}
    for name, data in pictures.items():
        put(device.inbox / name, data)
    with device:
        for _ in range(3):
            before = _inputs(cloud)
            device.wait_for(lambda before=before: len(_inputs(cloud)) > len(before), PROGRESS_S, "an input to arrive")
            time.sleep(rng.uniform(0, 0.1))
            cloud.kill()
            cloud.start()
        device.wait_for(lambda: len(_inputs(cloud)) == len(pictures), PROGRESS_S, "all inputs to arrive")
        device.wait_for(lambda: device.rows("SELECT * FROM uploads") == [], PROGRESS_S, "the device to know it")
    digests = {hashlib.sha256(data).hexdigest() for data in pictures.values()}
    assert set(_inputs(cloud)) == digests
    files = [path for path in (cloud.data_dir / "inputs").rglob("*") if path.is_file()]
    assert {path.name for path in files} == digests, "something half-written lies about"
    assert {hashlib.sha256(path.read_bytes()).hexdigest() for path in files} == digests


def _device(folder: Path, name: str, cloud: Cloud) -> Device:
    return Device(folder / name, name, cloud_url=cloud.url, claim=cloud.claim(name), root=cloud.root)


def _kill_and_start(cloud: Cloud, devices: list[Device], rng: random.Random) -> None:
    _wait_for_progress(devices, cloud)
    time.sleep(rng.uniform(0, LONGEST_LIFE_S))
    broker = cloud.broker_pid
    cloud.kill()
    wait_until(lambda: gone(broker), 10, "the broker to end with the control plane")
    for device in devices:
        acknowledged = int(device.rows("SELECT stored_through FROM state")[0][0])
        assert acknowledged <= stored_in_cloud(device.name, cloud), "acknowledged and not stored"
    log = _rollout_log(cloud)
    cloud.start()
    assert _rollout_log(cloud)[: len(log)] == log, "the rollout forgot steps that it had taken"


def _wait_for_progress(devices: list[Device], cloud: Cloud) -> None:
    before = {device.name: stored_in_cloud(device.name, cloud) for device in devices}
    wait_until(
        lambda: any(stored_in_cloud(device.name, cloud) > before[device.name] for device in devices),
        PROGRESS_S,
        "something new to be stored",
    )


def _rollout_log(cloud: Cloud) -> list[Any]:
    return cloud.rows("SELECT * FROM rollout_log ORDER BY id")


def _inputs(cloud: Cloud) -> list[str]:
    return [digest for (digest,) in cloud.rows("SELECT digest FROM inputs")]
