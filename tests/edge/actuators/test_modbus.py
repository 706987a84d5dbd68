"""Coils of a real Modbus TCP server: switched, pulsed, refused, late, gone and found again, and the heartbeat."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from edge.actuators import open_actuator
from edge.actuators.interface import Actuator
from edge.errors import ActuatorError
from tests.clocks import HeldClock
from tests.plants import COILS, HEARTBEAT, Plc
from tests.seams.test_actuators import decision
from tests.waiting import wait_until

DIVERT, SAFE, STOP = 1, 2, 3


@pytest.fixture
def plc() -> Iterator[Plc]:
    with Plc() as running:
        yield running


def wired(plc: Plc, **changes: Any) -> Actuator:
    settings = {
        "host": "127.0.0.1",
        "port": plc.port,
        "coils": {"divert": DIVERT, "safe": SAFE, "stop": STOP},
        "pulse_ms": 20,
        "heartbeat_s": 0.05,
        "timeout_ms": 300,
        **changes,
    }
    return open_actuator("modbus", settings, clock=HeldClock())


def test_action_pulses_its_coil_and_no_other(plc: Plc) -> None:
    actuator = wired(plc)
    plc.writes.clear()
    assert actuator.act(decision(1)) is None
    assert plc.writes == [(DIVERT, True)]
    wait_until(lambda: not plc.on(DIVERT), 5, "the end of the pulse")
    assert plc.writes == [(DIVERT, True), (DIVERT, False)]
    actuator.close()


def test_coil_that_the_plc_switches_off_is_left_on(plc: Plc) -> None:
    actuator = wired(plc, pulse_ms=0)
    actuator.act(decision(1))
    actuator.close()
    assert plc.writes == [(DIVERT, True)]


def test_action_without_a_coil_says_so(plc: Plc) -> None:
    actuator = wired(plc)
    assert actuator.act(decision(1, verdict="pass", action="pass")) == "nothing is wired for pass"
    actuator.close()


def test_safe_action_without_a_coil_has_failed(plc: Plc) -> None:
    actuator = wired(plc, coils={"divert": DIVERT})
    with pytest.raises(ActuatorError, match="nothing is wired for safe"):
        actuator.act(decision(1, verdict="defer", action="safe"))
    with pytest.raises(ActuatorError, match="nothing is wired for safe"):
        actuator.stop("5 rejects in a row")
    actuator.close()


def test_stop_is_held_until_it_is_released_and_over_a_close(plc: Plc) -> None:
    actuator = wired(plc)
    actuator.stop("5 rejects in a row")
    actuator.close()
    assert plc.on(STOP)
    again = wired(plc)
    assert plc.on(STOP), "only a person lets a stopped line run"
    again.release()
    assert not plc.on(STOP)
    again.close()


def test_stop_without_a_coil_is_the_safe_action(plc: Plc) -> None:
    actuator = wired(plc, coils={"divert": DIVERT, "safe": SAFE})
    actuator.stop("why")
    assert (SAFE, True) in plc.writes
    actuator.close()


def test_coil_left_on_by_a_cut_is_switched_off_at_the_start(plc: Plc) -> None:
    wired(plc, pulse_ms=0).act(decision(1))
    assert plc.on(DIVERT)
    actuator = wired(plc)
    assert not plc.on(DIVERT)
    actuator.close()


def test_register_counts_up_as_long_as_the_box_runs(plc: Plc) -> None:
    actuator = wired(plc, heartbeat_register=HEARTBEAT)
    wait_until(lambda: len(plc.beats) >= 3, 5, "three heartbeats")
    actuator.close()
    assert plc.beats[:3] == [1, 2, 3]
    beats = len(plc.beats)
    time.sleep(0.15)
    assert len(plc.beats) == beats, "a closed actuator is silent"


def test_coil_that_the_plc_does_not_have_is_an_error_at_the_start(plc: Plc) -> None:
    with pytest.raises(ActuatorError, match="refuses with exception code 2") as caught:
        wired(plc, coils={"divert": COILS + 5})
    assert "addresses" in caught.value.hint


def test_plc_that_is_not_there_is_an_error_at_the_start(plc: Plc) -> None:
    plc.stop()
    with pytest.raises(ActuatorError, match="cannot connect"):
        wired(plc)


def test_late_answer_is_an_error_within_the_actuators_deadline(plc: Plc) -> None:
    actuator = wired(plc, heartbeat_s=60)
    plc.delay_s = 0.8
    started_s = time.monotonic()
    with pytest.raises(ActuatorError, match=r"switching coil 1 \(divert\) on: .*No response"):
        actuator.act(decision(1))
    assert time.monotonic() - started_s < actuator.deadline_ms / 1000
    assert actuator.look() is not None
    plc.delay_s = 0.0
    actuator.close()


def test_plc_that_goes_away_is_known_without_a_part_and_found_again(plc: Plc) -> None:
    actuator = wired(plc)
    plc.stop()
    wait_until(lambda: actuator.look() is not None, 5, "the loss")
    started_s = time.monotonic()
    with pytest.raises(ActuatorError, match=r"modbus 127\.0\.0\.1"):
        actuator.act(decision(1))
    assert time.monotonic() - started_s < 1.0
    plc.start()
    wait_until(lambda: actuator.look() is None, 5, "the way back")
    plc.writes.clear()
    actuator.act(decision(2))
    assert plc.writes == [(DIVERT, True)]
    actuator.close()


def test_coil_that_cannot_be_switched_off_fails_the_next_action_until_it_can(plc: Plc) -> None:
    actuator = wired(plc, heartbeat_s=60, pulse_ms=100)
    actuator.act(decision(1))
    plc.stop()
    wait_until(lambda: actuator.look() is not None, 5, "the pulse that cannot end")
    with pytest.raises(ActuatorError, match="divert could not be switched off"):
        actuator.act(decision(2))
    actuator.close()
