"""A daemon that is told to end decides what somebody waits for, for so long and no longer, and says what it did not."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.store import Store
from edge.wire.rows import EventRow
from tests import nursery
from tests.brokers import free_port
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.edge.sources.mjpeg import MjpegCamera
from tests.edge.test_imaging import encoded
from tests.plainhttp import NOBODY
from tests.plants import Plc
from tests.waiting import wait_until

CONFIG = """
[device]
name = "box-1"
drain_s = {drain_s}
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
isolation = "inline"
source = {source}
[station.main.actuator]
kind = "modbus"
host = "127.0.0.1"
port = {plc}
coils = {{ pass = 0, divert = 1, safe = 2 }}
pulse_ms = 0
timeout_ms = 5000
"""
SLOW_S = 0.5
"""What the plant takes for one action: so a queue lasts."""
SENT = 10
BRIGHT = encoded("PNG", np.full((32, 32, 3), 250, np.uint8))


@pytest.fixture
def plc() -> Iterator[Plc]:
    with Plc() as running:
        running.delay_s = SLOW_S
        yield running


@contextmanager
def daemon(folder: Path, plc: Plc, source: str, drain_s: float) -> Iterator[nursery.Born]:
    (folder / "glass.lsb").write_bytes(bundle_bytes())
    (folder / "box.toml").write_text(CONFIG.format(drain_s=drain_s, source=source, plc=plc.port))
    with (folder / "log").open("wb") as log:
        process = nursery.start("edge", "run", "-c", "box.toml", cwd=folder, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def recorded(folder: Path) -> Store:
    return Store.open_read_only(folder / "data" / "lineside.sqlite", clock=HeldClock())


def decided(folder: Path) -> list[str]:
    with recorded(folder) as store:
        return [row.input.name for row in reversed(store.last_decisions(1000))]


def told(folder: Path, name: str) -> list[EventRow]:
    with recorded(folder) as store:
        return [row for row in store.rows(kind="event", limit=1000) if isinstance(row, EventRow) and row.name == name]


class Senders:
    """So many who each wait for the answer to one picture."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/decide"
        self.answers: list[httpx.Response] = []
        self._client = httpx.Client(timeout=60, verify=NOBODY)
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(SENT)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        self.answers.append(self._client.post(self._url, content=BRIGHT))

    def statuses(self) -> list[int]:
        for thread in self._threads:
            thread.join(30)
        return sorted(answer.status_code for answer in self.answers)


def waiting(port: int) -> int:
    try:
        health: dict[str, Any] = json.loads(httpx.get(f"http://127.0.0.1:{port}/healthz", verify=NOBODY).text)
        return int(health["waiting"])
    except httpx.TransportError:
        return -1


def queued(port: int) -> Senders:
    """Return senders whose pictures were taken in and wait behind a slow plant."""
    wait_until(lambda: waiting(port) == 0, 60, "the server")
    senders = Senders(port)
    wait_until(lambda: waiting(port) + len(senders.answers) >= SENT - 1, 30, "the pictures to be taken in")
    return senders


def test_what_is_not_decided_in_time_is_told_and_its_senders_hear_so(tmp_path: Path, plc: Plc) -> None:
    port = free_port()
    with daemon(tmp_path, plc, f'{{ kind = "http", port = {port}, answer_s = 60 }}', drain_s=1) as process:
        senders = queued(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    statuses = senders.statuses()
    assert len(statuses) == SENT and set(statuses) == {200, 503}
    assert statuses.count(200) == len(decided(tmp_path))
    (event,) = told(tmp_path, "inputs_not_decided")
    assert event.data["count"] == statuses.count(503) and "no time within 1 s" in event.detail
    refused = next(answer for answer in senders.answers if answer.status_code == 503)
    assert refused.json() == {"error": "the device is stopping"} and refused.headers["retry-after"] == "5"


def test_all_that_was_taken_in_is_decided_where_there_is_time(tmp_path: Path, plc: Plc) -> None:
    port = free_port()
    with daemon(tmp_path, plc, f'{{ kind = "http", port = {port}, answer_s = 60 }}', drain_s=60) as process:
        senders = queued(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert senders.statuses() == [200] * SENT and len(decided(tmp_path)) == SENT
    assert told(tmp_path, "inputs_not_decided") == []


def test_second_signal_ends_it_at_once_and_what_was_left_is_told(tmp_path: Path, plc: Plc) -> None:
    port = free_port()
    with daemon(tmp_path, plc, f'{{ kind = "http", port = {port}, answer_s = 60 }}', drain_s=600) as process:
        senders = queued(port)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: _stopping(port), 10, "the first signal to be heard")
        process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert process.wait(30) == 0
        took_s = time.monotonic() - began_s
    statuses = senders.statuses()
    assert 503 in statuses and statuses.count(200) == len(decided(tmp_path))
    (event,) = told(tmp_path, "inputs_not_decided")
    assert event.data["count"] == statuses.count(503) and "told twice" in event.detail
    assert took_s < SLOW_S * (SENT - 3), "less than the queue would have taken"


def test_parts_that_the_trigger_has_named_are_decided_before_it_ends(tmp_path: Path, plc: Plc) -> None:
    port = free_port()
    with MjpegCamera() as camera:
        source = (
            f'{{ kind = "camera", url = "{camera.url}", queue = 50, trigger = {{ kind = "line", port = {port} }} }}'
        )
        with daemon(tmp_path, plc, source, drain_s=60) as process:
            wait_until(lambda: _says(port, b""), 60, "the trigger")
            wait_until(lambda: camera.sent > 3, 30, "the camera")
            names = [f"SN-{number}" for number in range(SENT)]
            _says(port, b"".join(b"%s\n" % name.encode() for name in names))
            wait_until(lambda: decided(tmp_path), 30, "the first part")
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    assert [name.split(" ")[0] for name in decided(tmp_path)] == names
    assert told(tmp_path, "inputs_not_decided") == []


def _stopping(port: int) -> bool:
    return bool(httpx.get(f"http://127.0.0.1:{port}/healthz", verify=NOBODY).json()["stopping"])


def _says(port: int, text: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(text)
    except OSError:
        return False
    return True
