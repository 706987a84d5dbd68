"""Many swaps of a bundle, asked for from outside: each happens once, and none of them keeps memory."""

import random
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.bundles import bundle_bytes
from tests.faults.camera import Camera
from tests.faults.commander import Commander
from tests.faults.plant import START_S, Device
from tests.long import rounds

PICTURES_PER_S = 40.0
SWAPS = rounds(40, 200)
LEAK = 1.05
"""Memory after the last swaps may be so many times that after the first three."""


@pytest.fixture
def commander(tmp_path: Path) -> Iterator[Commander]:
    with Commander(tmp_path) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_many_swaps_leave_the_memory_as_it_was(commander: Commander, rng: random.Random, isolation: str) -> None:
    """Forty swaps, two hundred in the long form, which sees a leak of a fifth of the size.

    Inline, no process that ends gives memory back for the network; else the child that is left counts as well.
    """
    device = commander.device(fresh=True, probation={"windows": 1}, station={"isolation": isolation})
    bundles = [commander.publish(bundle_bytes(version)) for version in ("1.1.0", "1.2.0")]
    sizes: list[int] = []
    swapped = 0
    began_s = time.monotonic()
    with device, Camera(device.inbox, PICTURES_PER_S, rng):
        device.wait_for_action()
        for number in range(SWAPS):
            commander.want("box-1", bundles[number % 2])
            swapped = _swapped(device, swapped)
            if number < len(bundles):  # asked for while it is still on trial, the one before it would return instead
                _promoted(device, number + 1)
            if isolation == "process":
                device.wait_for(lambda: len(device.children()) == 1, START_S, "the one before it to be closed")
            sizes.append(_resident_bytes(device))
        assert len(device.children()) == (isolation == "process"), "a child was left behind"
    print(f"{SWAPS} swaps in {time.monotonic() - began_s:.0f} s")
    print(f"MiB: {[round(size / 2**20, 1) for size in [*sizes[:3], *sizes[9 :: SWAPS // 10], *sizes[-3:]]]}")
    assert max(sizes[-3:]) <= LEAK * max(sizes[:3])
    versions = [decision["bundle"]["version"] for decision in device.decisions() if "bundle" in decision]
    assert sum(a != b for a, b in pairwise(versions)) <= SWAPS, "a swap happened twice"
    assert len(device.events("bundle_swapped")) == SWAPS
    lost = [d for d in device.decisions() if d.get("reason") in ("model_error", "deadline")]
    assert lost == [], "windows were lost in a swap"


def _promoted(device: Device, trials: int) -> None:
    device.wait_for(lambda: len(device.events("bundle_promoted")) == trials, START_S, "the trial to be over")


def _resident_bytes(device: Device) -> int:
    """Return the RSS of the daemon and its children together."""
    processes = [psutil.Process(device.pid), *device.children()]
    return sum(process.memory_info().rss for process in processes)


def _swapped(device: Device, after: int) -> int:
    """Wait for the next bundle that decides in the place of another; return the number of the row that says so."""
    query = "SELECT min(seq) FROM rows WHERE seq > ? AND kind = 'event' AND body LIKE '%\"name\":\"bundle_swapped\"%'"
    found: list[int | None] = [None]

    def look() -> bool:
        found[0] = device.rows(query, after)[0][0]
        return found[0] is not None

    device.wait_for(look, START_S, "the next swap")
    return int(found[0] or 0)
