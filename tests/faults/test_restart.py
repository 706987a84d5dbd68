"""A device that is asked to end, as for maintenance: it ends between two windows and leaves nothing open."""

import random
from pathlib import Path

from tests.faults.camera import Camera
from tests.faults.plant import START_S, Cloud, Device
from tests.waiting import wait_until

PICTURES_PER_S = 50.0


def test_device_asked_to_end_ends_in_order_and_its_last_report_names_what_decided(
    tmp_path: Path, cloud: Cloud, rng: random.Random
) -> None:
    device = Device(tmp_path / "box-1", cloud_url=cloud.url, claim=cloud.claim("box-1"), root=cloud.root)
    with Camera(device.inbox, PICTURES_PER_S, rng):
        for _ in range(3):
            device.start()
            device.wait_for(lambda: _fresh(cloud), START_S, "the console to call it fresh")
            device.wait_for_action()
            device.wait_for(lambda: _told(cloud, device), START_S, "the console to know what decides")
            assert device.stop() == 0
            wait_until(lambda: cloud.view("box-1")["freshness"] == "stale", START_S, "the console to call it stale")
            assert cloud.reported("box-1")["stations"]["main"]["serving"]["version"] == "1.0.0"
            assert device.rows("SELECT * FROM pending_actions") == []
            assert device.recorded("event")[-1]["name"] == "daemon_stopped"
    assert {outcome["state"] for outcome in device.recorded("outcome")} == {"done"}
    assert len(device.actions()) == len(device.decisions())
    assert "Traceback" not in device.log


def test_signal_during_the_start_ends_it_too(tmp_path: Path) -> None:
    device = Device(tmp_path / "box-1", bundle=b"")
    device.start()
    wait_until(device.has_record, START_S, "its record")
    wait_until(lambda: "running" in device.log, START_S, "its first word")
    assert device.stop() == 0, device.log
    assert "Traceback" not in device.log


def _told(cloud: Cloud, device: Device) -> bool:
    """Whether the report in the cloud is of this start and names the bundle that decides."""
    reported = cloud.reported("box-1")
    this_start = reported["boot_id"] == device.decisions()[-1]["boot_id"]
    return this_start and reported["stations"]["main"]["serving"] is not None


def _fresh(cloud: Cloud) -> bool:
    found = cloud.rows("SELECT online FROM device_state")
    return bool(found) and cloud.view("box-1")["freshness"] == "fresh"
