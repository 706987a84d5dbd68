"""Runs `lineside-cloud serve` as the process that it is in service."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from typer.testing import CliRunner

from cloud.__main__ import app
from cloud.client import CloudClient
from tests import nursery

COMMAND = [sys.executable, "-m", "cloud"]
START_S = 90.0


class ServeProcess:
    """One control plane on a data folder; may be started and killed again and again."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.data_dir = data_dir
        self.addresses: dict[str, Any] = {}
        ports = ["--port", "0", "--device-port", "0"]
        self._arguments = ["serve", "--data-dir", str(data_dir), *ports, "--json", *arguments]
        self._process: nursery.Born | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()

    @property
    def broker_pid(self) -> int:
        """Process number of nats-server, which is the only child."""
        found = subprocess.run(["pgrep", "-P", str(self.addresses["pid"])], capture_output=True, check=True)
        return int(found.stdout.split()[0])

    @property
    def log(self) -> str:
        """What it wrote to stderr, over all starts."""
        return self._log_path.read_text("utf-8", "replace")

    def client(self) -> CloudClient:
        """Return a client of it."""
        return CloudClient(self.addresses["url"])

    def start(self) -> None:
        """Start it and wait until it says that it is up."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = nursery.start("cloud", *self._arguments, stdout=subprocess.PIPE, stderr=log)
        self.addresses = json.loads(self._first_line())

    def kill(self) -> None:
        """Kill it where it stands."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=20)
        self._close()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        code = self._process.wait(timeout=30)
        self._close()
        return code

    @property
    def _log_path(self) -> Path:
        return self.data_dir.with_name(f"{self.data_dir.name}.log")

    def _first_line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + START_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._process.stdout], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(self._process.stdout.fileno(), 4096) if ready else b""
            if not chunk:
                raise AssertionError(f"the control plane did not start: {self.log[-3000:]}")
            line += chunk
        return line.splitlines()[0]

    def _close(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None


def run(*arguments: str, words: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one command of `lineside-cloud` to its end, with `words` on stdin.

    `serve` gets a process, as in service. What only asks and answers runs here: its code is the same, and loading
    it takes far longer than the command; `tests/docs` and `tests/packaging` start such commands as programs.
    """
    if arguments[0] == "serve":
        return nursery.run("cloud", *arguments, timeout_s=START_S)
    done = CliRunner().invoke(app, arguments, input=words, prog_name="lineside-cloud")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([*arguments], done.exit_code, done.stdout, done.stderr)
