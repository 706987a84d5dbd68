"""`mode`, `acknowledge` and what `status` says of it, at a real daemon that runs meanwhile."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.clock import SystemClock
from edge.store import Store
from edge.wire.rows import EventRow
from tests import nursery
from tests.bundles import bundle_bytes
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture
from tests.waiting import wait_until
from tests.webserver import WebServer

CONFIG = """
[device]
name = "box-1"
[link]
report_interval_s = 0.5
[station.main]
model = "brightness"
bundle = "glass.lsb"
audit_share = 0
isolation = "inline"
stop_after_rejects = 3
reference_every_s = 3600
reference_name = "ref-*"
source = { kind = "folder", path = "inbox", watch = true }
"""


class Device:
    """A daemon in a folder of its own."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.parts = self.starts = 0
        self._process: nursery.Born | None = None
        (folder / "glass.lsb").write_bytes(bundle_bytes())
        (folder / "inbox").mkdir()
        (folder / "box.toml").write_text(config)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = nursery.start("edge", "run", "-c", "box.toml", cwd=self.folder, stdout=log, stderr=log)
        self.starts += 1
        wait_until(lambda: (self.folder / "log").read_bytes().count(b": running") == self.starts, 30, "the daemon")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def show(self, brightness: int) -> None:
        """Put a part before the camera."""
        self.parts += 1
        made = picture(self.folder / "made" / f"{self.parts:03}.png", brightness)
        made.rename(self.folder / "inbox" / made.name)

    def rows(self, kind: str) -> list[Any]:
        path = self.folder / "data" / "lineside.sqlite"
        with Store.open_read_only(path, clock=SystemClock()) as store:
            return store.rows(kind=kind)

    def decided(self, count: int) -> list[Any]:
        wait_until(lambda: len(self.rows("decision")) >= count, 30, f"{count} decisions")
        return self.rows("decision")

    def events(self, name: str) -> list[EventRow]:
        return [row for row in self.rows("event") if row.name == name]

    def type(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return edge(*words, "-c", "box.toml", cwd=self.folder)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.stop(signal.SIGKILL)


def test_mode_switched_at_the_device_holds_from_the_next_part_on(device: Device) -> None:
    device.start()
    device.show(250)
    assert device.decided(1)[0].mode == "partial"
    switched = device.type("mode", "main", "assist")
    assert (switched.returncode, switched.stdout) == (0, "main: assist from the next part on\n"), switched.stderr
    device.show(250)
    second = device.decided(2)[1]
    assert (second.mode, second.action) == ("assist", "none")
    assert len(device.events("station_changed")) == 1
    wait_until(lambda: "assist is held at the device by" in device.type("status").stdout, 10, "status to say it")
    given_back = device.type("mode", "main", "--give-back")
    assert (given_back.returncode, given_back.stdout) == (0, "main: given back from the next part on\n")
    device.show(250)
    assert device.decided(3)[2].mode == "partial"


def test_mode_set_while_nothing_runs_holds_at_the_next_start(device: Device) -> None:
    device.start()
    device.stop()
    kept = device.type("mode", "main", "human")
    assert kept.returncode == 1 and "kept" in kept.stdout
    device.start()
    device.show(250)
    assert device.decided(1)[0].mode == "human"


def test_wrong_words_are_named(device: Device) -> None:
    never = device.type("mode", "main", "full")
    assert never.returncode == 2 and "never started here" in never.stderr
    device.start()
    for words, problem in (
        (("mode", "main", "fast"), "expected one of human, shadow, assist, partial, full, got 'fast'"),
        (("mode", "press", "full"), "no station 'press'"),
        (("mode", "main", "full", "--give-back"), "either MODE or --give-back"),
        (("acknowledge", "press"), "no station 'press'"),
    ):
        answer = device.type(*words)
        assert answer.returncode == 2 and problem in answer.stderr
    assert device.type("acknowledge", "main").stdout == "main: the line is not stopped\n"


def test_stopped_line_is_shown_and_acknowledged_at_the_device(device: Device) -> None:
    device.start()
    for _ in range(3):
        device.show(5)
    device.decided(3)
    device.show(250)
    assert device.decided(4)[3].action == "safe"
    said = device.type("status")
    assert "stops after 3 rejects in a row" in said.stdout
    assert "must reject a part ref-* every 60 min" in said.stdout
    assert "STOPPED: 3 rejects in a row; `lineside-edge acknowledge main`" in said.stdout
    assert any("STOPPED" in words for words in json.loads(device.type("status", "--json").stdout)["rules"]["main"])
    answer = device.type("acknowledge", "main")
    assert answer.returncode == 0 and "the line runs again (it was stopped: 3 rejects in a row)" in answer.stdout
    device.show(250)
    assert device.decided(5)[4].action == "pass"
    assert [row.name for row in device.rows("event") if row.name.startswith("line_")] == [
        "line_stop_raised",
        "line_stop_cleared",
    ]
    # A decision is on record before it is acted on.
    wait_until(lambda: len(acted(device)) == 7, 30, "the last action")
    assert acted(device) == ["divert", "divert", "divert", "stop", "safe", "release", "pass"]


def acted(device: Device) -> list[str]:
    """Return what the actuator has done."""
    return [json.loads(line)["action"] for line in (device.folder / "actions.jsonl").read_text().splitlines()]


def test_killed_device_delivers_what_its_webhook_owed_and_calls_the_rest_unknown(tmp_path: Path) -> None:
    with WebServer() as server:
        server.behaviour.status = [503] * 10_000
        server.behaviour.answer = lambda _request: (200, b"ok")
        (tmp_path / "webhook.key").write_text("k" * 32)
        hook = f'actuator = {{ kind = "webhook", url = "{server.url}/x", secret_file = "webhook.key" }}\n'
        device = Device(tmp_path, CONFIG.replace("stop_after_rejects = 3\n", "") + hook)
        try:
            device.start()
            for _ in range(5):
                device.show(5)
            device.decided(5)
            wait_until(lambda: server.requests, 30, "a try")
            device.stop(signal.SIGKILL)
            assert device.rows("outcome") == []
            server.behaviour.status.clear()
            device.start()
            wait_until(lambda: len(device.rows("outcome")) == 5, 30, "five outcomes")
            assert {row.state for row in device.rows("outcome")} == {"done"}
            assert device.events("actions_unknown") == []
            device.stop()
            # The same record at a station whose actuator cannot know what became of them.
            with Store.open(tmp_path / "data" / "lineside.sqlite", clock=SystemClock()) as store:
                seq = store.append_decision(device.rows("decision")[0], input_key=None).seq
            (tmp_path / "box.toml").write_text(CONFIG)
            device.start()
            wait_until(lambda: device.events("actions_unknown"), 30, "the word")
            assert device.events("actions_unknown")[0].detail.endswith(f"carried out: {seq}")
            assert (device.rows("outcome")[-1].decision_seq, device.rows("outcome")[-1].state) == (seq, "unknown")
        finally:
            device.stop(signal.SIGKILL)
