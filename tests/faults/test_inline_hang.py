"""A network that hangs inside the daemon (`isolation = "inline"`): the watchdog is fed no more; systemd ends both."""

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.systemd import FEEDS_PER_TIMEOUT
from tests.bundles import bundle_bytes
from tests.faults.camera import picture, put
from tests.faults.plant import START_S, Device

WATCHDOG_S = 1.5
ALIVE = "WATCHDOG=1\nSTATUS=deciding"


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where systemd would listen, with a watchdog."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(START_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_S * 1e6)))
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        yield listening


def test_network_inline_that_hangs_keeps_the_watchdog_from_being_fed(
    tmp_path: Path, systemd: socket.socket, rng: random.Random
) -> None:
    device = Device(tmp_path / "box-1", bundle=bundle_bytes(kind="hanging_on_black"), station={"isolation": "inline"})
    with device:
        put(device.inbox / "a.png", picture(220, rng))
        device.wait_for_action()
        _heard(systemd, [ALIVE])
        put(device.inbox / "b.png", picture(0, rng, noise=0))
        # Three times within the watchdog's time it would be fed: this is twice that time without.
        _heard(systemd, ["STATUS=stuck: main"] * 2 * FEEDS_PER_TIMEOUT)
        assert device.running


def _heard(systemd: socket.socket, wanted: list[str]) -> None:
    """Read what systemd is told until it is this, one after the other."""
    until_s = time.monotonic() + START_S
    said: list[str] = []
    while said[-len(wanted) :] != wanted:
        assert time.monotonic() < until_s, f"systemd was told {said}"
        said.append(systemd.recv(1000).decode())
