"""Triggers: over real sockets and a real Modbus server; the GPIO chip alone is played by the test."""

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.sources.triggers import open_trigger
from edge.sources.triggers.interface import Trigger
from edge.sources.triggers.line import MAX_CONNECTIONS, LineTrigger
from edge.sources.triggers.watching import WatchingTrigger
from tests.plants import Plc
from tests.waiting import wait_until

COIL = 7


def opened(**settings: Any) -> Trigger:
    return open_trigger(settings, clock=SystemClock())


@pytest.fixture
def line() -> Iterator[tuple[LineTrigger, list[str]]]:
    trigger = opened(kind="line", port=0)
    fired: list[str] = []
    assert isinstance(trigger, LineTrigger)
    trigger.start(fired.append)
    yield trigger, fired
    trigger.close()
    trigger.close()


def connected(trigger: LineTrigger) -> socket.socket:
    return socket.create_connection(("127.0.0.1", trigger.port))


def test_each_line_fires_with_its_text_however_it_is_cut_up(line: tuple[LineTrigger, list[str]]) -> None:
    trigger, fired = line
    with connected(trigger) as connection:
        for piece in (b"SN", b"-1\nSN-2\r\n", b"\n", b"caf\xe9\n", b"not ended"):
            connection.sendall(piece)
            time.sleep(0.01)
        wait_until(lambda: len(fired) == 4, 5, "four lines")
    assert fired == ["SN-1", "SN-2", "", "caf\ufffd"]


def test_several_speak_at_once_and_one_that_leaves_does_no_harm(line: tuple[LineTrigger, list[str]]) -> None:
    trigger, fired = line
    first, second = connected(trigger), connected(trigger)
    first.sendall(b"a")
    second.sendall(b"b\n")
    wait_until(lambda: fired == ["b"], 5, "the second's line")
    first.close()
    second.sendall(b"c\n")
    wait_until(lambda: fired == ["b", "c"], 5, "another line")
    second.close()


def test_endless_line_is_cut_and_takes_no_memory(line: tuple[LineTrigger, list[str]]) -> None:
    trigger, fired = line
    with connected(trigger) as connection:
        connection.sendall(b"x" * 1_000_000 + b"\n")
        wait_until(lambda: len(fired) == 1, 5, "the line")
    assert len(fired[0]) == 200


def test_connections_are_bounded(line: tuple[LineTrigger, list[str]]) -> None:
    trigger, fired = line
    held = [connected(trigger) for _ in range(MAX_CONNECTIONS)]
    wait_until(lambda: len(trigger._pending) == MAX_CONNECTIONS, 5, "the connections")
    with connected(trigger) as one_more:
        one_more.settimeout(5)
        assert one_more.recv(1) == b""
    held[0].sendall(b"still here\n")
    wait_until(lambda: fired == ["still here"], 5, "a line of the first")
    for connection in held:
        connection.close()


def test_taken_port_is_a_source_error(line: tuple[LineTrigger, list[str]]) -> None:
    second = opened(kind="line", port=line[0].port)
    with pytest.raises(SourceError, match="cannot listen"):
        second.start(lambda _text: None)
    second.close()


def test_rate_is_kept_without_drift() -> None:
    trigger = opened(kind="rate", rate_hz=50)
    times: list[float] = []
    trigger.start(lambda _text: times.append(time.monotonic()))
    wait_until(lambda: len(times) >= 26, 10, "26 firings")
    trigger.close()
    assert 0.45 <= times[25] - times[0] < 1.0  # 25 periods of 20 ms
    count = len(times)
    time.sleep(0.05)
    assert len(times) == count, "nothing fires after it is closed"


@pytest.fixture
def plc() -> Iterator[Plc]:
    with Plc() as running:
        yield running


def switched(plc: Plc, *, on: bool) -> None:
    client = ModbusTcpClient("127.0.0.1", port=plc.port)
    assert client.connect()  # type: ignore[no-untyped-call]
    assert not client.write_coil(COIL, on, device_id=1).isError()
    client.close()  # type: ignore[no-untyped-call]


def test_coil_that_goes_on_fires_once(plc: Plc) -> None:
    fired: list[str] = []
    trigger = opened(kind="modbus", host="127.0.0.1", port=plc.port, address=COIL)
    trigger.start(fired.append)
    time.sleep(0.1)
    for expected in (1, 2):
        switched(plc, on=True)
        _until(fired, expected)
        time.sleep(0.05)
        switched(plc, on=False)
        time.sleep(0.05)
    assert len(fired) == 2 and trigger.problem is None
    trigger.close()


def test_coil_is_switched_off_again_where_that_is_asked(plc: Plc) -> None:
    fired: list[str] = []
    trigger = opened(kind="modbus", host="127.0.0.1", port=plc.port, address=COIL, reset=True)
    trigger.start(fired.append)
    time.sleep(0.1)
    for expected in (1, 2, 3):
        switched(plc, on=True)
        _until(fired, expected)
        wait_until(lambda: not plc.on(COIL), 5, "the coil to be off")
    assert len(fired) == 3
    trigger.close()


def test_device_that_is_away_is_a_problem_and_is_found_when_it_comes(plc: Plc) -> None:
    plc.stop()
    fired: list[str] = []
    trigger = opened(kind="modbus", host="127.0.0.1", port=plc.port, address=COIL)
    trigger.start(fired.append)
    wait_until(lambda: trigger.problem is not None, 5, "the problem")
    assert "nobody answers" in (trigger.problem or "")
    plc.start()
    wait_until(lambda: trigger.problem is None, 10, "the device")
    time.sleep(0.1)
    switched(plc, on=True)
    wait_until(lambda: len(fired) == 1, 5, "the firing")
    trigger.close()


def test_address_that_the_device_does_not_have_is_a_problem(plc: Plc) -> None:
    trigger = opened(kind="modbus", host="127.0.0.1", port=plc.port, address=60_000)
    trigger.start(lambda _text: None)
    wait_until(lambda: trigger.problem is not None, 5, "the problem")
    assert "coil 60000" in (trigger.problem or "")
    trigger.close()


class Barrier:
    """A light barrier as a GPIO line gives it: edges that came since the last look, or none when it is pulled out."""

    def __init__(self) -> None:
        self.edges = 0
        self.there = True

    def __call__(self) -> "Barrier":
        if not self.there:
            raise OSError(2, "No such file or directory")
        return self

    def firings(self) -> int:
        time.sleep(0.005)
        if not self.there:
            raise OSError(19, "No such device")
        edges, self.edges = self.edges, 0
        return edges

    def close(self) -> None:
        return


def test_every_edge_fires_and_a_chip_that_comes_back_goes_on() -> None:
    barrier = Barrier()
    fired: list[str] = []
    trigger = WatchingTrigger("gpio", barrier)
    trigger.start(fired.append)
    barrier.edges = 3
    wait_until(lambda: len(fired) == 3, 5, "three edges")
    barrier.there = False
    wait_until(lambda: trigger.problem is not None, 5, "the loss")
    assert "No such" in (trigger.problem or "")
    barrier.there = True
    wait_until(lambda: trigger.problem is None, 10, "the chip")
    barrier.edges = 1
    wait_until(lambda: len(fired) == 4, 5, "the edge")
    trigger.close()


def test_chip_that_is_not_there_is_a_problem_in_words() -> None:
    trigger = opened(kind="gpio", chip="/dev/gpiochip-that-is-not-there", line=4)
    trigger.start(lambda _text: None)
    wait_until(lambda: trigger.problem is not None, 5, "the problem")
    assert trigger.problem == "trigger gpio: No such file or directory"
    trigger.close()


@pytest.mark.skipif("LINESIDE_GPIO" not in os.environ, reason="LINESIDE_GPIO names no chip and line, as chip:line")
def test_real_line_can_be_watched() -> None:
    chip, _, number = os.environ["LINESIDE_GPIO"].partition(":")
    trigger = opened(kind="gpio", chip=chip, line=int(number))
    trigger.start(lambda _text: None)
    time.sleep(0.5)
    assert trigger.problem is None
    trigger.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "trigger: expected one of"),
        ({"kind": "rate"}, "trigger rate: rate_hz"),
        ({"kind": "modbus", "host": "plc"}, "trigger modbus: address"),
        ({"kind": "gpio", "line": 3, "edge": "both"}, "trigger gpio: edge"),
    ],
)
def test_wrong_setting_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        opened(**settings)


def _until(fired: list[str], count: int) -> None:
    wait_until(lambda: len(fired) >= count, 5, f"{count} firings")
