"""The plant's network between devices and control plane: TCP forwarders, from which one device can be unplugged.

Rules:
- A device whose cable is pulled loses its connections at once and gets no new ones until it is plugged in again.
- MQTT connections are told apart by the client id in their first packet, HTTP by a port of each device's own.
"""

import asyncio
import contextlib
from dataclasses import dataclass, field

CHUNK_BYTES = 65536
FIRST_PACKET_S = 5.0
"""Longest wait for a connection to say who it is."""


@dataclass
class Network:
    """The cables. Belongs to one event loop."""

    pulled: set[str] = field(default_factory=set)
    _live: dict[str, set[asyncio.StreamWriter]] = field(default_factory=dict)
    _servers: list[asyncio.Server] = field(default_factory=list)

    async def forward_broker(self, target_port: int, devices: list[str]) -> int:
        """Forward MQTT of all devices; return the port to connect to."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            first = b""
            with contextlib.suppress(TimeoutError, ConnectionError):
                first = await asyncio.wait_for(reader.read(CHUNK_BYTES), FIRST_PACKET_S)
            device = next((name for name in devices if _client_id(name) in first), "")
            await self._serve(device, first, reader, writer, target_port)

        return await self._listen(connected)

    async def forward_http(self, target_port: int, device: str) -> int:
        """Forward one device's HTTP; return the port to connect to."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(device, b"", reader, writer, target_port)

        return await self._listen(connected)

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

    async def _listen(self, connected: "asyncio.streams._ClientConnectedCallback") -> int:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _serve(
        self, device: str, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
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
        far_writer.write(first)
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


def _client_id(name: str) -> bytes:
    """Return the client id as a CONNECT packet holds it: two bytes of length, then the name (MQTT 3.1.1, 3.1.3.1)."""
    return len(name).to_bytes(2, "big") + name.encode()
