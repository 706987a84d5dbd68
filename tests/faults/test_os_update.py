"""An operating system goes through registry, signature, rollout and gate as a model does, to a real daemon and back.

The control plane, its broker and the daemon are the real commands; the machine is a simulated one, and the test is its
power switch. `python -m firmware_configs.prove os-update` is the same with a real system in QEMU.
"""

import random
from pathlib import Path
from typing import Any

import pytest

from edge.osslots import simulated
from tests.faults.camera import picture, put
from tests.faults.plant import START_S, Cloud, Device
from tests.systems import system
from tests.waiting import wait_until

PROFILE = "phone-sim"
NAME = f"os-{PROFILE}"
QUICK = {"slots": "simulated", "probation_s": 0.2, "idle_s": 0, "deadline_s": 60}
"""As a device is set up, but for minutes."""


@pytest.mark.slow
def test_good_system_is_kept_and_a_broken_one_comes_back_and_ends_its_rollout(
    tmp_path: Path, rng: random.Random
) -> None:
    with Cloud(tmp_path / "cloud") as cloud:
        device = Device(
            tmp_path / "box",
            cloud_url=cloud.url,
            claim=cloud.claim("box-1"),
            root=cloud.root,
            profile=PROFILE,
            os=QUICK,
        )
        with device:
            put(device.inbox / "part-1.png", picture(200, rng))
            device.wait_for(lambda: _os(cloud).get("serving"), START_S, "a first report of its system")
            good, broken = system("1.1.0", profile=PROFILE), system("1.2.0", profile=PROFILE)

            cloud.publish(good.data, tmp_path / "good.lsb")
            rollout = cloud.roll_out("1.1.0", [], model=NAME)
            assert device.ended() == 0  # it restarts into the new one
            device.start()
            wait_until(lambda: cloud.rollout(rollout)["status"] == "done", START_S, "the good system everywhere")
            assert _os(cloud)["serving"]["version"] == "1.1.0" and _slots(cloud)["1.1.0"]["state"] == "good"

            cloud.publish(broken.data, tmp_path / "broken.lsb")
            rollout = cloud.roll_out("1.2.0", [], model=NAME)
            assert device.ended() == 0
            machine = device.data_dir / "os/machine"
            for _ in range(3):  # started three times, and its daemon never
                simulated.start(machine)
            (device.data_dir / "os/why").write_text("the daemon ended 4 times; it said: broken\n")
            (machine / simulated.ASKED).touch()
            device.start()
            wait_until(lambda: cloud.rollout(rollout)["status"] == "rolled_back", START_S, "the rollout to be ended")
            why = "started 3 times and never well: the daemon ended 4 times; it said: broken"
            assert why in cloud.rollout(rollout)["why"]
            assert _os(cloud)["serving"]["version"] == "1.1.0" and why in _os(cloud)["problem"]
            assert (_slots(cloud)["1.2.0"]["state"], _slots(cloud)["1.2.0"]["reason"]) == ("bad", why)
            (failed,) = device.events("os_failed")
            assert failed["severity"] == "alarm" and failed["detail"].endswith("back to os-phone-sim 1.1.0")
            put(device.inbox / "part-2.png", picture(200, rng))
            device.wait_for(lambda: len(device.decisions()) == 2, START_S, "a decision under the old system")


def _os(cloud: Cloud) -> dict[str, Any]:
    with cloud.client() as client:
        known = client.get("/v1/devices")
    return (cloud.reported("box-1").get("os") or {}) if known else {}


def _slots(cloud: Cloud) -> dict[str, Any]:
    return {slot["bundle"]["version"]: slot for slot in cloud.reported("box-1")["slots"][NAME]}
