"""Lines: pulsed, held, gone and found again, behind the smallest part that needs a chip; and no chip at all.

No kernel of a common machine has a chip to spare. Where `gpio-sim` is there (CONFIG_GPIO_SIM, root), the same is tried
on its simulated chip through the kernel.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.actuators import open_actuator
from edge.actuators.gpio import GpioActuator, Lines
from edge.actuators.settings import GpioSettings
from edge.errors import ActuatorError
from tests.clocks import HeldClock
from tests.plants import FakeLines
from tests.seams.test_actuators import decision
from tests.waiting import wait_until

SETTINGS: dict[str, Any] = {"lines": {"divert": "GPIO17", "safe": 3, "stop": "GPIO4"}, "pulse_ms": 20}
SIM = Path("/sys/kernel/config/gpio-sim")


class Chip:
    """Gives out fake lines, as long as it is there."""

    def __init__(self) -> None:
        self.lines = FakeLines()
        self.there = True
        self.asked = 0

    def request(self) -> Lines:
        self.asked += 1
        if not self.there:
            raise ActuatorError("no such chip")
        self.lines = FakeLines()
        return self.lines

    def pull_out(self) -> None:
        self.there, self.lines.gone = False, True


def wired(chip: Chip, clock: HeldClock, **changes: Any) -> GpioActuator:
    return GpioActuator(GpioSettings.model_validate(SETTINGS | changes), chip.request, clock)


def test_action_pulses_its_line_by_name_or_number() -> None:
    chip = Chip()
    actuator = wired(chip, HeldClock())
    actuator.act(decision(1))
    actuator.safe("why")
    chip.lines.wait_off("GPIO17")
    chip.lines.wait_off(3)
    assert sorted(chip.lines.switched, key=str) == [("GPIO17", False), ("GPIO17", True), (3, False), (3, True)]
    actuator.close()
    assert not chip.lines.held


def test_close_ends_a_pulse_that_is_under_way() -> None:
    chip = Chip()
    actuator = wired(chip, HeldClock(), pulse_ms=60_000)
    actuator.act(decision(1))
    actuator.close()
    assert chip.lines.switched == [("GPIO17", True), ("GPIO17", False)]


def test_stop_is_held_until_it_is_released() -> None:
    chip = Chip()
    actuator = wired(chip, HeldClock())
    actuator.stop("why")
    assert chip.lines.on("GPIO4")
    actuator.release()
    assert not chip.lines.on("GPIO4")
    actuator.close()


def test_board_that_is_pulled_out_is_asked_for_again_once_a_second() -> None:
    chip, clock = Chip(), HeldClock()
    actuator = wired(chip, clock)
    chip.pull_out()
    for _ in range(5):
        with pytest.raises(ActuatorError):
            actuator.act(decision(1))
    assert chip.asked == 2
    assert actuator.look() is not None
    chip.there = True
    clock.forward(1.1)
    actuator.act(decision(2))
    assert actuator.look() is None and chip.lines.on("GPIO17")
    actuator.close()


@pytest.mark.parametrize("chip", ["/dev/gpiochip-none", "/dev/null"])
def test_box_without_that_chip_is_an_error_with_what_to_do(chip: str) -> None:
    with pytest.raises(ActuatorError, match=f"{chip}: cannot take lines GPIO17, 3, GPIO4: No such") as caught:
        open_actuator("gpio", SETTINGS | {"chip": chip}, clock=HeldClock())
    assert "gpiodetect" in caught.value.hint


@pytest.fixture
def simulated() -> Iterator[tuple[Path, Path]]:
    """A chip of `gpio-sim` with eight lines, the second named EJECT: its device, and its folder of values."""
    if not SIM.is_dir() or os.geteuid() != 0:
        pytest.skip("the kernel has no gpio-sim, or this is not root")
    device = SIM / f"lineside-{os.getpid()}"
    bank, line = device / "bank0", device / "bank0" / "line1"
    try:
        line.mkdir(parents=True)
        (bank / "num_lines").write_text("8")
        (line / "name").write_text("EJECT")
        (device / "live").write_text("1")
        chip = (bank / "chip_name").read_text().strip()
        platform = (device / "dev_name").read_text().strip()
        yield Path("/dev") / chip, Path("/sys/devices/platform") / platform / chip
    finally:
        with contextlib.suppress(OSError):
            (device / "live").write_text("0")
        for folder in (line, bank, device):
            folder.rmdir()


def test_lines_of_a_simulated_chip_are_pulsed_through_the_kernel(simulated: tuple[Path, Path]) -> None:
    chip, values = simulated
    settings = {"chip": str(chip), "lines": {"divert": "EJECT", "stop": 2}, "active_low": ["stop"], "pulse_ms": 50}
    actuator = open_actuator("gpio", settings, clock=HeldClock())
    assert (values / "sim_gpio2" / "value").read_text().strip() == "1", "off is high where active is low"
    actuator.act(decision(1))
    assert (values / "sim_gpio1" / "value").read_text().strip() == "1"
    wait_until(lambda: (values / "sim_gpio1" / "value").read_text().strip() == "0", 5, "the end of the pulse")
    actuator.stop("why")
    assert (values / "sim_gpio2" / "value").read_text().strip() == "0"
    actuator.close()
    with pytest.raises(ActuatorError, match="cannot take lines NOBODY"):
        open_actuator("gpio", {"chip": str(chip), "lines": {"divert": "NOBODY"}}, clock=HeldClock())
