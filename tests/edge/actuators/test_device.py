"""A real device at a real PLC: it decides before the PLC is there, says so once, and acts as soon as it can."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge.commands.test_switch import CONFIG, Device
from tests.plants import HEARTBEAT, Plc
from tests.waiting import wait_until

DIVERT, SAFE, STOP = 1, 2, 3


@pytest.fixture
def plc() -> Iterator[Plc]:
    with Plc() as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, plc: Plc) -> Iterator[Device]:
    wired = (
        f'actuator = {{ kind = "modbus", host = "127.0.0.1", port = {plc.port}, heartbeat_register = {HEARTBEAT}, '
        f"heartbeat_s = 0.1, pulse_ms = 20, coils = {{ divert = {DIVERT}, safe = {SAFE}, stop = {STOP} }} }}\n"
    )
    made = Device(tmp_path, CONFIG + wired)
    yield made
    made.stop(signal.SIGKILL)


def alarms(device: Device) -> list[str]:
    return [row.name for row in device.rows("event") if row.name.startswith("actuator_")]


def test_device_decides_without_its_plc_and_acts_when_it_comes(device: Device, plc: Plc) -> None:
    plc.stop()
    device.start()
    for _ in range(2):
        device.show(5)
    device.decided(2)
    wait_until(lambda: len(device.rows("outcome")) == 2, 30, "two outcomes")
    assert [row.state for row in device.rows("outcome")] == ["failed"] * 2
    assert "cannot open the modbus actuator" in device.rows("outcome")[0].detail
    assert alarms(device) == ["actuator_failure_raised"]
    wait_until(lambda: "cannot open the modbus actuator" in device.type("status").stdout, 30, "its report to say so")
    plc.start()
    wait_until(lambda: len(plc.beats) >= 3, 60, "heartbeats")
    device.show(5)
    wait_until(lambda: len(device.rows("outcome")) == 3, 30, "the third outcome")
    assert device.rows("outcome")[2].state == "done" and (DIVERT, True) in plc.writes


def test_stopped_line_holds_its_coil_until_a_person_comes(device: Device, plc: Plc) -> None:
    device.start()
    for _ in range(3):
        device.show(5)
    wait_until(lambda: plc.on(STOP), 30, "the stop")
    device.stop(signal.SIGKILL)
    device.start()
    assert plc.on(STOP)
    # A busy machine may need longer to put the station together than the command waits; what is kept holds then.
    answer = device.type("acknowledge", "main")
    assert "the line runs again" in answer.stdout, answer.stdout + answer.stderr
    wait_until(lambda: not plc.on(STOP), 30, "the release")
