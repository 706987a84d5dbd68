"""systemd hears ready, alive and stopping over a real socket, and nothing while a station stands still."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.systemd import Notifier, feed


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def notifier(systemd: socket.socket, watchdog_us: str = "") -> Notifier:
    return Notifier({"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": watchdog_us})


def heard(systemd: socket.socket) -> str:
    return systemd.recv(1000).decode()


def test_message_arrives(systemd: socket.socket) -> None:
    assert notifier(systemd).say("READY=1")
    assert heard(systemd) == "READY=1"


def test_abstract_address_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0lineside-test-notify")
        listening.settimeout(5)
        assert Notifier({"NOTIFY_SOCKET": "@lineside-test-notify"}).say("STOPPING=1")
        assert heard(listening) == "STOPPING=1"


def test_without_systemd_nothing_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    assert not Notifier({}).say("READY=1")
    assert not Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).say("READY=1")


def test_systemd_that_does_not_read_holds_nothing_up(systemd: socket.socket) -> None:
    ours = notifier(systemd)
    assert not all(ours.say("WATCHDOG=1") for _ in range(10_000)), "its queue is full, and that is all"
    assert heard(systemd) == "WATCHDOG=1"


def test_watchdog_of_another_process_is_not_ours(systemd: socket.socket) -> None:
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}
    assert Notifier(environment).watchdog_s is None


def test_watchdog_is_fed_while_every_station_turns_and_not_when_one_is_stuck(systemd: socket.socket) -> None:
    looks: Iterator[dict[str, int | None]] = iter(
        [{"a": 1, "b": 1}, {"a": 2, "b": 5}, {"a": 3, "b": 5}, {"a": 4, "b": 6}]
    )

    async def until_the_looks_end() -> None:
        await feed(notifier(systemd, "3000"), lambda: next(looks))

    with pytest.raises(RuntimeError):  # what a StopIteration becomes in a coroutine
        asyncio.run(until_the_looks_end())
    alive = "WATCHDOG=1\nSTATUS=deciding"
    assert [heard(systemd) for _ in range(4)] == [alive, alive, "STATUS=stuck: b", alive]


def test_station_that_has_nothing_more_to_do_is_not_stuck(systemd: socket.socket) -> None:
    looks: Iterator[dict[str, int | None]] = iter([{"a": None}, {"a": None}])

    async def until_the_looks_end() -> None:
        await feed(notifier(systemd, "3000"), lambda: next(looks))

    with pytest.raises(RuntimeError):
        asyncio.run(until_the_looks_end())
    assert all(heard(systemd).startswith("WATCHDOG=1") for _ in range(2))


def test_without_a_watchdog_feeding_ends_at_once(systemd: socket.socket) -> None:
    asyncio.run(feed(notifier(systemd), dict))


def test_daemon_whose_networks_load_slowly_asks_systemd_for_more_patience_and_never_for_less(
    systemd: socket.socket,
) -> None:
    ours = notifier(systemd, "60000000")
    ours.allow_silence(30)
    assert ours.watchdog_s == 60
    ours.allow_silence(90)
    assert heard(systemd) == "WATCHDOG_USEC=135000000"
    assert ours.watchdog_s == 135
    alone = notifier(systemd)
    alone.allow_silence(90)
    assert alone.watchdog_s is None
