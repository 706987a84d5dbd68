"""Switches lines of a GPIO chip, through libgpiod's own binding: relays, lamps and ejectors wired to the box.

Rules:
- Lines are asked for by name or number, all at once, and held as outputs, off, for as long as the actuator is open.
- A chip that goes away (a USB board pulled out) is asked for again, at most once a second.
- `Lines` is the smallest part that needs a chip: everything else runs, and is tested, without one.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import gpiod
from gpiod.line import Direction, Value

from edge.actuators.interface import Output, Place
from edge.actuators.settings import GpioSettings, Line
from edge.actuators.wired import WiredActuator
from edge.errors import ActuatorError
from edge.settings import read_settings

if TYPE_CHECKING:
    from edge.clock import Clock

REOPEN_S = 1.0


class Lines(Protocol):
    """The lines of a chip: the part that needs one."""

    def set_value(self, line: Line, value: Value) -> None:
        """Switch a line; raises OSError if the chip is gone."""
        ...

    def release(self) -> None:
        """Give the lines back."""
        ...


class GpioWires:
    """Outputs on the lines of one chip."""

    def __init__(self, lines: Mapping[Output, Line], request: Callable[[], Lines], clock: "Clock") -> None:
        self._lines, self._request, self._clock = lines, request, clock
        self._held: Lines | None = request()
        self.problem: str | None = None
        self._next_try_s = 0.0

    def switch(self, output: Output, *, on: bool) -> None:
        try:
            self._there().set_value(self._lines[output], Value.ACTIVE if on else Value.INACTIVE)
        except OSError as error:
            self.problem = f"line {self._lines[output]!r}: {error.strerror or error}"
            self.close()
            raise ActuatorError(self.problem, hint="is the board still there?") from error
        self.problem = None

    def upkeep(self) -> None:
        """Nothing: lines that are held stay."""

    def close(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            try:
                held.release()
            except OSError:
                # The chip is gone, and the lines with it.
                return

    def _there(self) -> Lines:
        if self._held is None:
            if self._clock.monotonic_s() < self._next_try_s:
                raise ActuatorError(self.problem or "the lines are not there")
            self._next_try_s = self._clock.monotonic_s() + REOPEN_S
            self._held = self._request()
        return self._held


class GpioActuator(WiredActuator):
    """Switches lines."""

    def __init__(self, settings: GpioSettings, request: Callable[[], Lines], clock: "Clock") -> None:
        wires = GpioWires(settings.lines, request, clock)
        super().__init__("gpio", wires, settings.lines, pulse_ms=settings.pulse_ms, deadline_ms=settings.timeout_ms)


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> GpioActuator:  # noqa: ARG001
    """Take the lines.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: there is no such chip or line, or somebody else holds it.
    """
    read = read_settings(GpioSettings, settings, where="actuator gpio")
    return GpioActuator(read, lambda: request_lines(read), clock)


def probe(settings: Mapping[str, Any]) -> str:
    """Return who holds the lines, without asking for them.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: there is no such chip or line.
    """
    read = read_settings(GpioSettings, settings, where="actuator gpio")
    try:
        with gpiod.Chip(str(read.chip)) as chip:
            infos = [chip.get_line_info(line) for line in read.lines.values()]
    except (OSError, ValueError) as error:
        raise _no_lines(read, error) from error
    held = {info.consumer for info in infos if info.used}
    return f"{read.chip} has {len(infos)} lines, " + (f"held by {', '.join(sorted(held))}" if held else "all free")


def request_lines(settings: GpioSettings) -> Lines:
    """Ask the kernel for the lines, as outputs that are off.

    Raises:
        ActuatorError: there is no such chip or line, or somebody else holds it.
    """
    config: dict[Any, Any] = {
        line: gpiod.LineSettings(direction=Direction.OUTPUT, active_low=output in settings.active_low)
        for output, line in settings.lines.items()
    }
    try:
        with gpiod.Chip(str(settings.chip)) as chip:
            for line in settings.lines.values():
                chip.line_offset_from_id(line)
            return chip.request_lines(config, consumer="lineside")
    except (OSError, ValueError) as error:
        raise _no_lines(settings, error) from error


def _no_lines(settings: GpioSettings, error: Exception) -> ActuatorError:
    why = getattr(error, "strerror", None) or error
    wanted = ", ".join(str(line) for line in settings.lines.values())
    return ActuatorError(
        f"{settings.chip}: cannot take lines {wanted}: {why}",
        hint="`gpiodetect` lists the chips, `gpioinfo` their lines and who holds them",
    )
