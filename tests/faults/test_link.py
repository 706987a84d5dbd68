"""A broker that is away at the start, vanishes, or falls silent: the device decides all the same and catches up."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.badlink import BadLink
from tests.faults.camera import Camera
from tests.faults.plant import START_S, Cloud, Device
from tests.faults.sameness import assert_same_in_cloud, stored_in_cloud
from tests.waiting import wait_until

PICTURES_PER_S = 80.0
OUTAGE_ROWS = 1_000
CATCH_UP_S = 60.0


@pytest.fixture
def line(tmp_path: Path) -> Iterator[BadLink]:
    """The way from devices to the broker, which can be cut."""
    with BadLink(0) as link:
        yield link


@pytest.fixture
def cloud(tmp_path: Path, line: BadLink) -> Iterator[Cloud]:
    """A control plane whose broker devices reach by the line only."""
    with Cloud(tmp_path / "cloud", broker_by=line.port) as started:
        line.target = started.broker_port
        yield started


@pytest.fixture
def device(tmp_path: Path, cloud: Cloud) -> Device:
    return Device(tmp_path / "box-1", cloud_url=cloud.url, claim=cloud.claim("box-1"), root=cloud.root)


def test_device_that_finds_no_control_plane_decides_and_enrols_when_there_is_one(
    cloud: Cloud, device: Device, rng: random.Random
) -> None:
    cloud.kill()
    with device, Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        device.wait_for(lambda: len(device.decisions()) >= 50, START_S, "decisions without a control plane")
        assert device.actions(), "it decided and did not act"
        assert cloud.rows("SELECT device FROM devices") == []
        cloud.start()
        device.wait_for(lambda: stored_in_cloud("box-1", cloud) >= 50, CATCH_UP_S, "the first rows in the cloud")
        camera.stop()
        _catch_up(device)
    assert_same_in_cloud(device, cloud)


def test_device_catches_up_after_an_outage_with_more_than_a_thousand_rows(
    cloud: Cloud, device: Device, line: BadLink, rng: random.Random
) -> None:
    with device, Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        device.wait_for(lambda: stored_in_cloud("box-1", cloud) > 0, START_S, "rows in the cloud")
        for kind in ("cut", "silent"):
            _break(line, kind)
            before = len(device.decisions())
            device.wait_for(lambda: device.outbox_rows() > OUTAGE_ROWS, CATCH_UP_S, "a full outbox")
            assert len(device.decisions()) > before
            device.wait_for(
                lambda: device.reported()["health"]["outbox_rows"] > OUTAGE_ROWS, START_S, "its report to say so"
            )
            _mend(line)
            device.wait_for(lambda: device.outbox_rows() < 100, CATCH_UP_S, f"the outbox after the line was {kind}")
        camera.stop()
        _catch_up(device)
        wait_until(lambda: cloud.view("box-1")["freshness"] == "fresh", START_S, "the console to call it fresh")
    assert {decision["input"]["name"] for decision in device.decisions()} == set(camera.names)
    assert_same_in_cloud(device, cloud)


def test_device_started_without_a_broker_decides_with_what_it_has(
    cloud: Cloud, device: Device, line: BadLink, rng: random.Random
) -> None:
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        device.wait_for(lambda: stored_in_cloud("box-1", cloud) > 0, START_S, "rows in the cloud")
    _break(line, "cut")
    with device, Camera(device.inbox, PICTURES_PER_S, rng) as camera:
        before = len(device.decisions())
        device.wait_for(lambda: len(device.decisions()) > before + 50, START_S, "decisions without a broker")
        stored = stored_in_cloud("box-1", cloud)
        assert device.outbox_rows() > 0
        _mend(line)
        device.wait_for(lambda: stored_in_cloud("box-1", cloud) > stored, CATCH_UP_S, "the rest in the cloud")
        camera.stop()
        _catch_up(device)
    assert_same_in_cloud(device, cloud)


def _break(line: BadLink, kind: str) -> None:
    if kind == "silent":
        line.hole = True
    else:
        line.refuse = True
        line.cut()


def _mend(line: BadLink) -> None:
    line.refuse = line.hole = False


def _catch_up(device: Device) -> None:
    """Wait until everything that is in the folder is decided, and all of it is stored in the cloud."""
    names = {path.name for path in device.inbox.glob("*.png")}
    device.wait_for(
        lambda: {decision["input"]["name"] for decision in device.decisions()} >= names, CATCH_UP_S, "all decisions"
    )
    last = max(decision["seq"] for decision in device.decisions())
    device.wait_for(
        lambda: device.rows("SELECT stored_through FROM state")[0][0] >= last, CATCH_UP_S, "all of them to be stored"
    )
