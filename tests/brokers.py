"""Real MQTT brokers for tests: `nats-server` from its wheel, and Mosquitto where it is installed.

Rules:
- A broker keeps its port and its folder over `stop` and `start`, as a broker that was restarted does.
- Anonymous: access rules are the control plane's own tests' business.
"""

import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.wire.http import BrokerAddress
from tests.waiting import wait_until

KINDS = ("nats", "mosquitto")
TRIES = 3


class TestBroker:
    """One broker process on a port of 127.0.0.1."""

    __test__ = False

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self._folder = folder
        self._binary = find_binary(kind)
        self._process: subprocess.Popen[bytes] | None = None
        self._ran = False

    @property
    def address(self) -> BrokerAddress:
        return BrokerAddress(host="127.0.0.1", port=self.port, username="device", password="secret")

    def start(self) -> None:
        """Start it; another port is taken where somebody took the first one before it ever ran."""
        for attempt in range(TRIES):
            try:
                self._start()
                break
            except AssertionError as error:
                if self._ran or attempt == TRIES - 1 or "already in use" not in str(error):
                    raise
                self.port = free_port()
        self._ran = True

    def _start(self) -> None:
        config = self._folder / f"{self.kind}.conf"
        config.write_text(_nats(self.port, self._folder) if self.kind == "nats" else _mosquitto(self.port))
        arguments = {"nats": ["-c", str(config)], "mosquitto": ["-c", str(config)]}[self.kind]
        with (self._folder / "broker.log").open("ab") as output:
            self._process = subprocess.Popen([self._binary, *arguments], stdout=output, stderr=output)
        wait_until(self._answers, 20, f"{self.kind} on port {self.port}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=20)
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.kind} ended: {(self._folder / 'broker.log').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def broker(kind: str, folder: Path, *, start: bool = True) -> Iterator[TestBroker]:
    """A broker in `folder`; skips the test with a sentence where that kind is not installed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = TestBroker(kind, folder)
    if start:
        made.start()
    try:
        yield made
    finally:
        if made._process is not None:
            made.resume()
        made.stop(signal.SIGKILL)


def find_binary(kind: str) -> str:
    """Return the broker's program, or skip the test."""
    name = {"nats": "nats-server", "mosquitto": "mosquitto"}[kind]
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip(f"{name} is not installed on this machine")
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _nats(port: int, folder: Path) -> str:
    return (
        f'server_name: "test-{port}"\n'
        'host: "127.0.0.1"\n'
        f"port: {free_port()}\n"
        f'jetstream {{\n  store_dir: "{folder / "jetstream"}"\n}}\n'
        f'mqtt {{\n  host: "127.0.0.1"\n  port: {port}\n}}\n'
    )


def _mosquitto(port: int) -> str:
    return f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 100000\n"
