"""The control plane as a process: starts, stops, is killed, and keeps every row exactly once."""

import os
import random
import signal
import socket
import sqlite3
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion

from edge.wire.http import EnrolAnswer
from edge.wire.messages import Ack
from edge.wire.topics import topic
from tests.cloud.process import ServeProcess, run
from tests.cloud.world import decision, device_context, enrol_request, event, up
from tests.waiting import wait_until

KILLS = 5
BATCH_ROWS = 20
PATIENCE_S = 0.5


class ResendingDevice:
    """Makes rows all the time, and sends those that are not acknowledged until they are."""

    def __init__(self, answer: EnrolAnswer, tls: ssl.SSLContext | None) -> None:
        self.made = 0
        self.stored = 0
        self._answer = answer
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._make), threading.Thread(target=self._send)]
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=answer.device, clean_session=False)
        assert tls is not None
        self._client.tls_set_context(tls)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topic(answer.device, "ack"), 1)
        self._client.on_message = self._take_ack

    def __enter__(self) -> "ResendingDevice":
        self._client.connect_async(self._answer.broker.host, self._answer.broker.port)
        self._client.loop_start()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.rest()
        self._threads[1].join()
        self._client.disconnect()
        self._client.loop_stop()

    def rest(self) -> None:
        """Make no more rows."""
        self._stop.set()

    def _make(self) -> None:
        while not self._stop.wait(0.01):
            self.made += 5

    def _send(self) -> None:
        while not (self._stop.is_set() and self.stored >= self.made):
            before = self.stored
            for first in range(before + 1, min(self.made, before + 10 * BATCH_ROWS) + 1, BATCH_ROWS):
                seqs = range(first, min(self.made, first + BATCH_ROWS - 1) + 1)
                rows = [decision(seq) if seq % 2 else event(seq) for seq in seqs]
                self._client.publish(topic(self._answer.device, "up"), up(self._answer.device, rows).payload, qos=1)
            deadline = time.monotonic() + PATIENCE_S
            while self.stored == before and time.monotonic() < deadline:
                time.sleep(0.005)

    def _take_ack(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        self.stored = max(self.stored, Ack.model_validate_json(message.payload).stored_through)


def _device(cloud: ServeProcess) -> ResendingDevice:
    answer = _enrol(cloud, "box-1")
    return ResendingDevice(answer, device_context(answer))


def _enrol(cloud: ServeProcess, device: str) -> EnrolAnswer:
    with cloud.client() as client:
        request = enrol_request(Ed25519PrivateKey.generate(), client.claim()["token"], device)
        return EnrolAnswer.model_validate(client.post("/v1/enrol", request.model_dump()))


def _seqs(data_dir: Path, table: str) -> list[int]:
    with sqlite3.connect(data_dir / "cloud.sqlite") as database:
        seqs = [seq for (seq,) in database.execute(f"SELECT seq FROM {table}")]
    database.close()
    return seqs


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_control_plane_killed_in_the_middle_of_ingest_keeps_every_row_exactly_once(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with ServeProcess(tmp_path / "data", "--broker-port", "0") as cloud, _device(cloud) as box:
        for _ in range(KILLS):
            before = box.stored
            wait_until(lambda before=before: box.stored > before, 60, "rows to be stored")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.3))
            broker = cloud.broker_pid
            cloud.kill()
            wait_until(lambda broker=broker: not _alive(broker), 20, "the broker to die with it")  # type: ignore[misc]
            known = box.stored
            stored = set(_seqs(cloud.data_dir, "decisions")) | set(_seqs(cloud.data_dir, "events"))
            assert stored >= set(range(1, known + 1)), "acknowledged rows are missing after kill -9"
            cloud.start()
        box.rest()
        wait_until(lambda: box.stored == box.made, 60, "everything to be stored")
        assert cloud.stop() == 0
    found = _seqs(tmp_path / "data", "decisions") + _seqs(tmp_path / "data", "events")
    assert sorted(found) == list(range(1, box.made + 1))
    assert box.made > 100


def test_control_plane_asked_to_end_ends_with_its_broker_and_code_0(tmp_path: Path) -> None:
    for how in (signal.SIGTERM, signal.SIGINT):
        with ServeProcess(tmp_path / "data", "--broker-port", "0") as cloud:
            broker = cloud.broker_pid
            with cloud.client() as client:
                assert client.get("/healthz")["ok"] is True
            assert cloud.stop(how) == 0
            assert not _alive(broker)
            assert "Traceback" not in cloud.log


def test_second_control_plane_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with ServeProcess(tmp_path / "data", "--broker-port", "0") as cloud:
        second = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0", "--broker-port", "0")
        assert second.returncode == 4
        assert "another control plane runs on" in second.stderr
        with cloud.client() as client:
            assert client.devices() == []


def test_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        http = run("serve", "--data-dir", str(tmp_path / "a"), "--port", port, "--broker-port", "0")
        assert (http.returncode, "set server.port" in http.stderr) == (2, True)
        mqtt_port = run("serve", "--data-dir", str(tmp_path / "b"), "--port", "0", "--broker-port", port)
        assert (mqtt_port.returncode, "set broker.port" in mqtt_port.stderr) == (5, True)


def test_address_that_others_reach_needs_an_operator_token(tmp_path: Path) -> None:
    (tmp_path / "cloud.toml").write_text('[server]\nhost = "0.0.0.0"\nport = 0\n[broker]\nport = 0\n')
    refused = run("serve", "--config", str(tmp_path / "cloud.toml"))
    assert refused.returncode == 2
    assert "no operator token is set" in refused.stderr


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
