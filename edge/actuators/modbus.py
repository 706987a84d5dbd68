"""Switches coils of a PLC over Modbus TCP, and counts up a register so that the PLC knows that this box is alive.

Rules:
- A coil for each action, switched off after the pulse; with `pulse_ms = 0` the PLC does that when it has taken it.
- A write that is not answered in time has failed, and is not repeated: the PLC may have taken it, and its part is gone.
- The connection is looked after every `heartbeat_s`, so a PLC that is gone is known before a part comes; while it is
  away, actions fail at once.
- Pulsed coils are off when a connection begins: a box that was cut in the middle of a pulse left one on.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from pymodbus import ModbusException
from pymodbus.client import ModbusTcpClient

from edge.actuators.interface import Output, Place
from edge.actuators.settings import ModbusSettings
from edge.actuators.wired import WiredActuator
from edge.errors import ActuatorError
from edge.settings import read_settings

if TYPE_CHECKING:
    from edge.clock import Clock

# It writes every lost connection to the log as an error of its own; ours say what became of the part.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)


class Coils:
    """The coils of one PLC."""

    def __init__(self, settings: ModbusSettings, *, switch_off: bool = True) -> None:
        self._s = settings
        self._switch_off = switch_off and settings.pulse_ms > 0
        # Any: pymodbus leaves the types of some methods out.
        self._client: Any = ModbusTcpClient(
            settings.host, port=settings.port, timeout=settings.timeout_ms / 1000, retries=0, reconnect_delay=0
        )
        self._beats = 0
        self.problem: str | None = "not connected yet"
        self._connect()

    def switch(self, output: Output, *, on: bool) -> None:
        if self.problem is not None:
            raise ActuatorError(self.problem)
        self._write(output, on=on)

    def upkeep(self) -> None:
        try:
            if self.problem is not None:
                self._connect()
            self._beat()
        except ActuatorError:
            # `problem` says it, and the next action fails with it.
            return

    def read_all(self) -> None:
        """Read every coil and the register once.

        Raises:
            ActuatorError: the PLC does not answer or does not have one.
        """
        unit = self._s.unit
        for coil in self._s.coils.values():
            self._ask(partial(self._client.read_coils, coil, count=1, device_id=unit), f"reading coil {coil}")
        register = self._s.heartbeat_register
        if register is not None:
            read = partial(self._client.read_holding_registers, register, count=1, device_id=unit)
            self._ask(read, f"reading register {register}")

    def close(self) -> None:
        self._client.close()
        self.problem = "closed"

    def _connect(self) -> None:
        self._client.close()
        if not self._client.connect():
            raise self._failed("cannot connect", "look at the cable, the address and the PLC")
        if self._switch_off:
            for output in self._s.coils:
                if output != "stop":
                    self._write(output, on=False)
        self.problem = None

    def _beat(self) -> None:
        if self._s.heartbeat_register is None:
            # Something must go over the line, or a PLC that drops quiet connections is found out with the next part.
            first = next(iter(self._s.coils.values()))
            self._ask(lambda: self._client.read_coils(first, count=1, device_id=self._s.unit), f"reading coil {first}")
            return
        self._beats = (self._beats + 1) & 0xFFFF
        register = self._s.heartbeat_register
        self._ask(
            lambda: self._client.write_register(register, self._beats, device_id=self._s.unit),
            f"heartbeat in register {register}",
        )

    def _write(self, output: Output, *, on: bool) -> None:
        coil = self._s.coils[output]
        self._ask(
            lambda: self._client.write_coil(coil, on, device_id=self._s.unit),
            f"switching coil {coil} ({output}) {'on' if on else 'off'}",
        )

    def _ask(self, request: Any, what: str) -> None:
        try:
            answer = request()
        except (ModbusException, OSError) as error:
            # A late answer must not be taken for that of the next request.
            self._client.close()
            why = str(error).removeprefix("Modbus Error: ")
            raise self._failed(f"{what}: {why}", "look at the cable and the PLC") from error
        if answer.isError():
            code = getattr(answer, "exception_code", None)
            raise ActuatorError(
                f"{self._where}: {what}: the PLC refuses with exception code {code}",
                hint="look at the addresses: 2 is a coil or register that the PLC does not have",
            )

    def _failed(self, what: str, hint: str) -> ActuatorError:
        self.problem = f"{self._where}: {what}"
        return ActuatorError(self.problem, hint=hint)

    @property
    def _where(self) -> str:
        return f"modbus {self._s.host}:{self._s.port}"


class ModbusActuator(WiredActuator):
    """Switches coils."""

    def __init__(self, settings: ModbusSettings) -> None:
        super().__init__(
            "modbus",
            Coils(settings),
            settings.coils,
            pulse_ms=settings.pulse_ms,
            # A write right behind a heartbeat may wait for that one's answer too.
            deadline_ms=2 * settings.timeout_ms,
            upkeep_s=settings.heartbeat_s,
        )


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> ModbusActuator:  # noqa: ARG001
    """Connect to the PLC.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: the PLC cannot be reached or does not have a coil.
    """
    return ModbusActuator(read_settings(ModbusSettings, settings, where="actuator modbus"))


def probe(settings: Mapping[str, Any]) -> str:
    """Return whether the PLC has the coils and the register, reading them once.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: the PLC cannot be reached or does not have one.
    """
    read = read_settings(ModbusSettings, settings, where="actuator modbus")
    coils = Coils(read, switch_off=False)
    try:
        coils.read_all()
    finally:
        coils.close()
    return f"{read.host}:{read.port} has {len(read.coils)} coils" + (
        "" if read.heartbeat_register is None else " and the register"
    )
