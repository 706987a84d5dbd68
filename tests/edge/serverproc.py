"""A prediction server for tests: the real daemon with the `http` source, in a process that can be frozen and killed."""

import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests import nursery
from tests.bundles import bundle_bytes
from tests.plainhttp import NOBODY
from tests.waiting import wait_until

CONFIG = """
[device]
name = "server-1"
[store]
durability = "process"
[station.main]
model = "{model}"
bundle = "model.lsb"
isolation = "inline"
audit_share = 0
actuator = {{ kind = "none" }}
{station}
[station.main.source]
kind = "http"
port = {port}
"""


class Server:
    """A second device on a port of its own."""

    def __init__(
        self, folder: Path, bundle: bytes | None = None, model: str = "brightness", station: str = "", **settings: Any
    ) -> None:
        """Prepare it; `station` are more lines of its station, `settings` those of its source."""
        self.folder = folder
        folder.mkdir()
        (folder / "model.lsb").write_bytes(bundle or bundle_bytes())
        with socket.create_server(("127.0.0.1", 0)) as chosen:
            self.port = int(chosen.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._model, self._station = model, station
        self._process: nursery.Born | None = None
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Set the source's settings, from the next start on."""
        own = "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in settings.items())
        text = CONFIG.format(model=self._model, port=self.port, station=self._station)
        (self.folder / "box.toml").write_text(text + own)

    def start(self) -> Self:
        self._process = nursery.start("edge", "run", "-c", "box.toml", cwd=self.folder, stderr=subprocess.DEVNULL)
        wait_until(self._healthy, 30, "the server")
        return self

    def freeze(self) -> None:
        """Let it hang: connections are taken in by its system, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=1, verify=NOBODY).status_code == 200
        except httpx.TransportError:
            return False
