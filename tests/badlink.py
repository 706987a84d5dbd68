"""A TCP proxy that behaves like a bad network: delay, thin line, silence, resets, cuts.

Runs in a thread with an event loop of its own, so that tests of any kind can use it as
`with BadLink(port) as link: ... link.cut()`.
"""

import asyncio
import socket
import struct
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

CHUNK_BYTES = 16 * 1024
LOOK_S = 0.01


class BadLink:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`; the attributes may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.delay_s = 0.0
        """Added to every chunk, both ways."""
        self.bytes_per_s: float | None = None
        self.hole = False
        """Connections stay open and nothing passes: a half-open link."""
        self.refuse = False
        """New connections are reset at once."""
        self.cut_after_bytes: int | None = None
        """Reset everything after this many more bytes towards the client, once."""
        self.connections = 0
        self.bytes_to_client = 0
        self.bytes_to_target = 0
        self._live: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="badlink", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server: asyncio.Server = self._in_loop(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_loop(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def cut(self) -> None:
        """Reset every open connection."""
        self._in_loop(self._cut())

    # ── private, in call order ────────────────────────────────────────────────────────────────────────────────

    def _in_loop(self, call: Any) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(call, self._loop)
        return done.result(timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refuse:
            return _reset(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return _reset(writer)
        self._live |= {writer, far_writer}
        try:
            await asyncio.gather(
                self._pump(reader, far_writer, to_client=False), self._pump(far_reader, writer, to_client=True)
            )
        except asyncio.CancelledError:
            return None  # the proxy ends
        finally:
            self._live -= {writer, far_writer}
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                while self.hole:
                    await asyncio.sleep(LOOK_S)
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(chunk) / self.bytes_per_s)
                await self._forward(chunk, writer, to_client=to_client)
        except OSError:
            return
        finally:
            writer.close()

    async def _forward(self, chunk: bytes, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        left = self.cut_after_bytes if to_client else None
        chunk, beyond = (chunk, False) if left is None else (chunk[:left], len(chunk) >= left)
        writer.write(chunk)
        await writer.drain()
        if to_client:
            self.bytes_to_client += len(chunk)
        else:
            self.bytes_to_target += len(chunk)
        if left is not None:
            self.cut_after_bytes = None if beyond else left - len(chunk)
        if beyond:
            await asyncio.sleep(0.05)  # let the bytes before the cut arrive: a reset overtakes them
            await self._cut()

    async def _cut(self) -> None:
        for writer in list(self._live):
            _reset(writer)

    async def _stop(self) -> None:
        self.hole = False
        self._server.close()
        await self._cut()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
