"""Fires when a coil or input of a Modbus TCP device goes on: a PLC says that a part is in place.

Rules:
- It is polled: a pulse must last longer than `poll_ms`, or the PLC waits until the coil is off again (`reset`).
- What is on at the start is not an edge: nobody knows since when.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException

from edge.settings import read_settings
from edge.sources.triggers.settings import ModbusSettings
from edge.sources.triggers.watching import WatchingTrigger

if TYPE_CHECKING:
    from edge.clock import Clock


class ModbusCoil:
    """One coil or input, asked again and again."""

    def __init__(self, settings: ModbusSettings) -> None:
        """Connect; raises OSError if nobody answers."""
        self._settings = settings
        self._client = ModbusTcpClient(
            settings.host, port=settings.port, timeout=settings.timeout_s, retries=0, reconnect_delay=0
        )
        self._was_on = True
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise OSError(f"nobody answers at {settings.host}:{settings.port}")

    def firings(self) -> int:
        time.sleep(self._settings.poll_ms / 1000)
        on = self._read()
        fires, self._was_on = on and not self._was_on, on
        if fires and self._settings.reset:
            self._off()
            self._was_on = False
        return int(fires)

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]

    def _read(self) -> bool:
        wanted = self._settings
        read = self._client.read_coils if wanted.table == "coil" else self._client.read_discrete_inputs
        try:
            answer = read(wanted.address, count=1, device_id=wanted.unit)
        except ModbusException as error:
            raise OSError(str(error)) from error
        if answer.isError():
            raise OSError(f"{wanted.table} {wanted.address}: {answer}")
        return bool(answer.bits[0])

    def _off(self) -> None:
        try:
            answer = self._client.write_coil(self._settings.address, False, device_id=self._settings.unit)
        except ModbusException as error:
            raise OSError(str(error)) from error
        if answer.isError():
            raise OSError(f"coil {self._settings.address} cannot be reset: {answer}")


def open_trigger(settings: Mapping[str, Any], *, clock: "Clock") -> WatchingTrigger:  # noqa: ARG001
    """Make the trigger; its settings are `ModbusSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    checked = read_settings(ModbusSettings, settings, where="trigger modbus")
    return WatchingTrigger("modbus", lambda: ModbusCoil(checked))
