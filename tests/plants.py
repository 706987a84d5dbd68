"""The plant's side of actuators, for tests: a real Modbus TCP server, and the lines of a GPIO chip."""

import asyncio
import errno
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Self

from gpiod.line import Value
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tests.brokers import free_port
from tests.waiting import wait_until

COILS = 16
HEARTBEAT = 100


class Plc:
    """`with Plc() as plc:` a PLC with 16 coils and a register at 100, that keeps its port over `stop` and `start`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.writes: list[tuple[int, bool]] = []
        """Every coil that was written, and to what, in order."""
        self.beats: list[int] = []
        self.delay_s = 0.0
        """Longer than a client waits is a PLC that hangs."""
        self.connections = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: Any = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def on(self, coil: int) -> bool:
        """Whether a coil is on."""
        return dict(self.writes).get(coil, False)

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="plc", daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Go away, connections and all."""
        if self._thread is not None and self._server is not None and self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop)
            self._thread.join(10)
            self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        coils = SimData(0, count=COILS, values=False, datatype=DataType.BITS)
        inputs = SimData(0, count=1, values=False, datatype=DataType.BITS)
        registers = SimData(HEARTBEAT, count=1, values=0, datatype=DataType.REGISTERS)
        others = SimData(0, count=1, values=0, datatype=DataType.REGISTERS)
        device = SimDevice(1, simdata=([coils], [inputs], [registers], [others]))
        self._server = ModbusTcpServer(
            device, address=("127.0.0.1", self.port), trace_pdu=self._note, trace_connect=self._connected
        )
        await self._server.serve_forever(background=True)
        ready.set()
        await self._server.serving
        await asyncio.sleep(0.02)

    def _note(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not sending:
            time.sleep(self.delay_s)
            if pdu.function_code == 5:
                self.writes.append((pdu.address, bool(pdu.bits[0])))
            elif pdu.function_code == 6:
                self.beats.append(pdu.registers[0])
        return pdu

    def _connected(self, connected: bool) -> None:
        self.connections += connected


@dataclass
class FakeLines:
    """The lines of a chip, without the chip; `gone` is a board that was pulled out."""

    gone: bool = False
    switched: list[tuple[Any, bool]] = field(default_factory=list)
    held: bool = True

    def set_value(self, line: int | str, value: Value) -> None:
        if self.gone:
            raise OSError(errno.ENODEV, "No such device")
        self.switched.append((line, value is Value.ACTIVE))

    def release(self) -> None:
        self.held = False

    def on(self, line: int | str) -> bool:
        return next((on for switched, on in reversed(self.switched) if switched == line), False)

    def wait_off(self, line: int | str) -> None:
        """Return when the line is off again."""
        wait_until(lambda: not self.on(line), 5, f"line {line} to be off")
