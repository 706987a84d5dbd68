"""The plant's network between devices and control plane: TCP forwarders, from which one device can be unplugged.

Rules:
- A device whose cable is pulled loses its connections at once and gets no new ones until it is plugged in again.
- Each device reaches the control plane by a loopback address of its own, so connections are told apart by where they
  arrive: what they say is encrypted. (All of 127.0.0.0/8 is this machine, on Linux.)
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

CHUNK_BYTES = 65536
ADDRESSES = "127.0.0.{}"
FIRST_ADDRESS = 11
TRIES = 5
"""To find a port that is free on all addresses."""


@dataclass
class Network:
    """The cables. Belongs to one event loop."""

    devices: tuple[str, ...]
    pulled: set[str] = field(default_factory=set)
    _live: dict[str, set[asyncio.StreamWriter]] = field(default_factory=dict)
    _servers: list[asyncio.Server] = field(default_factory=list)

    def address(self, device: str) -> str:
        """Return the address by which a device reaches the control plane."""
        return ADDRESSES.format(FIRST_ADDRESS + self.devices.index(device))

    async def forward_broker(self, target_port: int) -> int:
        """Forward MQTT of all devices; return the port to connect to, the same at every address.

        Raises:
            OSError: no port is free.
        """
        for attempt in range(TRIES):
            opened: list[asyncio.Server] = []
            port = 0
            try:
                for device in self.devices:
                    opened.append(await self._listen(device, port, target_port))
                    port = opened[-1].sockets[0].getsockname()[1]
            except OSError:
                for server in opened:
                    server.close()
                if attempt == TRIES - 1:
                    raise
            else:
                self._servers += opened
                return port
        raise AssertionError("not reached")

    async def forward_http(self, target_port: int, device: str) -> int:
        """Forward one device's HTTPS; return the port to connect to."""
        self._servers.append(await self._listen(device, 0, target_port))
        port: int = self._servers[-1].sockets[0].getsockname()[1]
        return port

    def pull(self, device: str) -> None:
        """Pull this device's cable."""
        self.pulled.add(device)
        for writer in self._live.pop(device, set()):
            writer.transport.abort()

    def plug(self, device: str) -> None:
        """Plug it in again."""
        self.pulled.discard(device)

    async def close(self) -> None:
        """Stop forwarding."""
        for server in self._servers:
            server.close()
        for device in list(self._live):
            self.pull(device)

    async def _listen(self, device: str, port: int, target_port: int) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(device, reader, writer, target_port)

        return await asyncio.start_server(connected, self.address(device), port)

    async def _serve(self, device: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        if device in self.pulled:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._live.setdefault(device, set()).update(pair)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._live.get(device, set()).difference_update(pair)
            for end in pair:
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
