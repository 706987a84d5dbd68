"""Fires for each line of text on a TCP socket: a scanner, a PLC, or a script says that a part is in place.

Rules:
- The line is the part's name; one that is too long or no UTF-8 is cut or replaced, never refused: the part is there.
- A line ends with LF, with or without CR; an empty one fires too.
"""

import selectors
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge.errors import SourceError
from edge.settings import read_settings
from edge.sources.triggers.interface import Fire
from edge.sources.triggers.settings import LineSettings

if TYPE_CHECKING:
    from edge.clock import Clock

MAX_LINE_BYTES = 200
MAX_CONNECTIONS = 16
_POLL_S = 0.1
_JOIN_S = 2.0


class LineTrigger:
    """Listens for lines."""

    kind = "line"
    parts = True
    problem: str | None = None

    def __init__(self, settings: LineSettings) -> None:
        self._settings = settings
        self._selector = selectors.DefaultSelector()
        self._pending: dict[socket.socket, bytes] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.port = settings.port
        """The port it listens at, also where the settings leave the choice to the system (0)."""

    def start(self, fire: Fire) -> None:
        try:
            server = socket.create_server((self._settings.host, self._settings.port))
        except OSError as error:
            where = f"{self._settings.host}:{self._settings.port}"
            raise SourceError(f"trigger line: cannot listen at {where}: {error.strerror}") from error
        server.setblocking(False)
        self.port = int(server.getsockname()[1])
        self._selector.register(server, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, args=(server, fire), name="trigger-line", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self, server: socket.socket, fire: Fire) -> None:
        try:
            while not self._stop.is_set():
                for key, _ in self._selector.select(_POLL_S):
                    if key.fileobj is server:
                        self._accept(server)
                    else:
                        assert isinstance(key.fileobj, socket.socket)
                        self._receive(key.fileobj, fire)
        finally:
            for connection in list(self._pending):
                self._forget(connection)
            self._selector.close()
            server.close()

    def _accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except OSError:
            return  # gone before it was taken
        if len(self._pending) >= MAX_CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._pending[connection] = b""
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket, fire: Fire) -> None:
        try:
            data = connection.recv(4096)
        except OSError:
            data = b""
        if not data:
            self._forget(connection)
            return
        *lines, rest = (self._pending[connection] + data).split(b"\n")
        self._pending[connection] = rest[:MAX_LINE_BYTES]
        for line in lines:
            fire(line[:MAX_LINE_BYTES].decode("utf-8", "replace").strip())

    def _forget(self, connection: socket.socket) -> None:
        del self._pending[connection]
        self._selector.unregister(connection)
        connection.close()


def open_trigger(settings: Mapping[str, Any], *, clock: "Clock") -> LineTrigger:  # noqa: ARG001
    """Make the trigger; its settings are `LineSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    return LineTrigger(read_settings(LineSettings, settings, where="trigger line"))
