"""What `/healthz`, `/metrics` and systemd are told of a real daemon in each bad state, and when it is over."""

import fcntl
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import urllib3

from tests import nursery
from tests.brokers import free_port
from tests.bundles import bundle_bytes
from tests.edge.commands.test_infer import picture
from tests.edge.sources.mjpeg import MjpegCamera
from tests.edge.sources.mjpeg import picture as frame
from tests.plants import Plc
from tests.waiting import wait_until

PIPE_BYTES = 4096
"""The smallest pipe that the kernel gives: full after some twenty actions that nobody takes."""
PICTURES = 60
HEAD = """
[device]
name = "box-1"
[link]
report_interval_s = 1
[local]
listen = "127.0.0.1:{port}"
"""
STATION = """
[station.{name}]
model = "{model}"
bundle = "{model}.lsb"
isolation = "inline"
audit_share = 0
{more}
source = {{ {source} }}
actuator = {{ {actuator} }}
"""
LOG = 'kind = "log", path = "{name}.jsonl"'
FOLDER = 'kind = "folder", path = "{name}"'


@dataclass
class Box:
    """A running daemon."""

    folder: Path
    process: nursery.Born
    port: int

    def get(self, path: str) -> urllib3.BaseHTTPResponse:
        return urllib3.request("GET", f"http://127.0.0.1:{self.port}{path}", retries=False, timeout=20)

    def health(self) -> tuple[int, dict[str, Any]]:
        try:
            answer = self.get("/healthz")
        except urllib3.exceptions.HTTPError:
            return 0, {}
        return answer.status, answer.json()

    def is_well(self) -> bool:
        return self.health() == (200, {"ok": True, "stuck": [], "trouble": []})

    def in_trouble(self) -> set[str]:
        status, said = self.health()
        troubled = {*said.get("trouble", []), *said.get("stuck", [])}
        assert not said or (status == 200) is (not troubled) is said["ok"]
        return troubled

    def scraped(self) -> dict[str, float]:
        text = self.get("/metrics").data.decode()
        return {
            name: float(ok) for name, ok in re.findall(r'^lineside_station_ok\{station="(\w+)"\} (\S+)$', text, re.M)
        }

    def problems(self) -> dict[str, str | None]:
        stations = self.get("/api/state").json()["reported"]["stations"]
        return {name: station["problem"] for name, station in stations.items()}


@contextmanager
def running(folder: Path, stations: str, environment: dict[str, str] | None = None) -> Iterator[Box]:
    """Run a daemon with these stations; it is killed in the end, for some of them hang."""
    port = free_port()
    (folder / "brightness.lsb").write_bytes(bundle_bytes())
    (folder / "box.toml").write_text(HEAD.format(port=port) + stations)
    with (folder / "log").open("wb") as log:
        seen = {**os.environ, **(environment or {})}
        process = nursery.start("edge", "run", "-c", "box.toml", cwd=folder, stderr=log, env=seen)
    try:
        yield Box(folder, process, port)
    finally:
        process.kill()
        process.wait()


def station(
    name: str, *, model: str = "brightness", source: str = FOLDER, actuator: str = 'kind = "none"', more: str = ""
) -> str:
    return STATION.format(
        name=name, model=model, source=source.format(name=name), actuator=actuator.format(name=name), more=more
    )


def test_each_station_in_trouble_is_named_with_its_reason_and_the_others_are_not(tmp_path: Path) -> None:
    with Plc() as plc, MjpegCamera() as camera:
        camera.show = lambda number: frame(number) // 40
        port = plc.port
        plc.stop()
        (tmp_path / "damaged.lsb").write_bytes(b"rubbish")
        for name in ("good", "plantless", "bundleless", "stopped", "asking"):
            (tmp_path / name).mkdir()
        for number in range(2):
            picture(tmp_path / "stopped" / f"{number}.png", 5)
        picture(tmp_path / "asking" / "0.png", 128)
        modbus = f'kind = "modbus", host = "127.0.0.1", port = {port}, coils = {{{{ divert = 1, safe = 2 }}}}'
        stations = (
            station("good")
            + station("sourceless")
            + station("black", source=f'kind = "camera", url = "{camera.url}"')
            + station("plantless", actuator=modbus)
            + station("bundleless", model="damaged")
            + station("stopped", more="stop_after_rejects = 2")
            + station("asking", more=f'ask.url = "http://127.0.0.1:{free_port()}"')
        )
        expected = {
            "sourceless": "nothing there|no such|cannot be listed|there is nothing",
            "black": "black",
            "plantless": "cannot open the modbus actuator",
            "bundleless": "no bundle yet",
            "stopped": "the line is stopped: .*; acknowledge it at the device",
            "asking": "refused",
        }
        with running(tmp_path, stations) as box:
            wait_until(lambda: box.in_trouble() == expected.keys(), 60, "every trouble to be known")
            assert box.scraped() == {"good": 1.0, **dict.fromkeys(expected, 0.0)}
            problems = box.problems()
            assert problems.pop("good") is None
            for name, words in expected.items():
                assert re.search(words, problems[name] or "", re.IGNORECASE), problems[name]
            (tmp_path / "sourceless").mkdir()
            camera.show = frame
            plc.start()
            wait_until(
                lambda: box.in_trouble() == {"bundleless", "stopped", "asking"}, 60, "what was mended to be well"
            )
            assert box.scraped()["black"] == 1.0


@contextmanager
def plant_by_pipe(folder: Path) -> Iterator[int]:
    """A plant that takes actions by a pipe, as long as somebody reads it."""
    os.mkfifo(folder / "main.jsonl")
    reader = os.open(folder / "main.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    yield reader
    os.close(reader)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    with plant_by_pipe(tmp_path) as reader:
        yield reader


@pytest.fixture(scope="module", autouse=True)
def hanging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A daemon that hangs on its plant: begun before the first test, because it takes ten seconds until it is known."""
    folder = tmp_path_factory.mktemp("hanging")
    for number in range(PICTURES):
        picture(folder / "main" / f"{number}.png", 5)
    with plant_by_pipe(folder), running(folder, station("main", actuator=LOG)) as box:
        yield box


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(20)
        yield listening


def heard_until(systemd: socket.socket, said: Callable[[str], bool], timeout_s: float = 60) -> list[str]:
    """Return what systemd is told until it hears this."""
    heard: list[str] = []
    until_s = time.monotonic() + timeout_s
    while not heard or not said(heard[-1]):
        assert time.monotonic() < until_s, heard[-20:]
        heard.append(systemd.recv(4096).decode())
    return heard


def emptied(reader: int) -> None:
    with suppress(BlockingIOError):
        while os.read(reader, 65536):
            pass


def test_watchdog_hears_nothing_while_a_pipeline_hangs_for_real_and_is_fed_again_when_it_goes_on(
    tmp_path: Path, pipe: int, systemd: socket.socket
) -> None:
    (tmp_path / "other").mkdir()
    for number in range(PICTURES):
        picture(tmp_path / "main" / f"{number}.png", 5 + number % 2 * 240)
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1500000"}
    with running(tmp_path, station("main", actuator=LOG) + station("other"), environment) as box:
        assert heard_until(systemd, lambda said: said == "READY=1")[:-1] == []
        heard_until(systemd, lambda said: said == "STATUS=stuck: main")
        for _ in range(6):
            assert systemd.recv(4096) == b"STATUS=stuck: main", "not fed once while it hangs"
        wait_until(lambda: box.in_trouble() == {"main"}, 30, "the page to know")
        status, said = box.health()
        assert (status, said["ok"], said["stuck"]) == (503, False, ["main"])
        assert box.scraped() == {"main": 0.0, "other": 1.0}
        emptied(pipe)
        heard_until(systemd, lambda said: said.startswith("WATCHDOG=1"))
        while not box.is_well():
            emptied(pipe)
        box.process.send_signal(signal.SIGTERM)
        heard_until(systemd, lambda said: said == "STOPPING=1")


def test_daemon_whose_pipeline_hangs_ends_when_it_is_told_twice(hanging: Box) -> None:
    box = hanging
    wait_until(lambda: box.health()[1].get("stuck") == ["main"], 60, "it to hang")
    box.process.send_signal(signal.SIGTERM)
    wait_until(lambda: box.health()[0] == 0, 20, "the first signal to be heard")
    box.process.send_signal(signal.SIGTERM)
    began_s = time.monotonic()
    assert box.process.wait(30) == 0
    assert time.monotonic() - began_s < 15, "far less than drain_s and what ending may take"
    assert "a station did not end in time" in (box.folder / "log").read_text()
