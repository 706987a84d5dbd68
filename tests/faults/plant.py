"""A small plant for fault tests: a control plane, devices and cameras that may be killed at any moment.

Rules:
- Devices and control plane are the real commands, each a process of its own, started with a file of settings.
- A device may be killed and started again; it keeps its folder, as a box keeps its disk.
- What a device did is read from the outside: its record, its actuator's log, its processes.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil

from cloud import keys
from tests import nursery
from tests.brokers import free_port
from tests.bundles import bundle_bytes
from tests.cloud.process import ServeProcess
from tests.edge.command import edge
from tests.waiting import wait_until

MODEL = "brightness"
START_S = 60.0
"""Longest wait for a daemon to act for the first time: a hundred times what it takes on a quiet machine."""
STOP_S = 30.0
AT_ONCE = """
[[stages]]
kind = "ramp"
share = 1.0
min_s = 0
max_s = 600
"""
"""Stages of a plan that gives a bundle to all its devices at once."""


class Cloud(ServeProcess):
    """A control plane with keys, on ports that it keeps over restarts."""

    def __init__(self, folder: Path, *, broker_by: int | None = None) -> None:
        """Make its folder; `broker_by` is the port by which devices reach the broker, if not its own."""
        folder.mkdir(parents=True, exist_ok=True)
        self.keys_dir = folder / "keys"
        server = keys.create(self.keys_dir, now=datetime.now(UTC).replace(microsecond=0))
        data_dir = folder / "data"
        shutil.copytree(server, data_dir / "keys")
        self.broker_port = free_port()
        settings = folder / "cloud.toml"
        settings.write_text(f"[broker]\nport = {self.broker_port}\npublic_port = {broker_by or self.broker_port}\n")
        ports = ["--port", str(free_port()), "--device-port", str(free_port())]
        super().__init__(data_dir, *ports, "--config", str(settings))

    @property
    def root(self) -> Path:
        """The root that devices are flashed with."""
        return self.keys_dir / "root.json"

    @property
    def url(self) -> str:
        """Where devices reach it, by HTTPS."""
        return str(self.addresses["device_url"])

    def claim(self, device: str) -> str:
        """Return a token with which this device may enrol."""
        with self.client() as client:
            return str(client.claim(device=device)["token"])

    def view(self, device: str) -> dict[str, Any]:
        """Return what the control plane shows of a device."""
        with self.client() as client:
            return dict(client.get(f"/v1/devices/{device}"))

    def reported(self, device: str) -> dict[str, Any]:
        """Return the last report of a device, empty if there is none."""
        return dict(self.view(device)["reported"] or {})

    def publish(self, data: bytes, path: Path) -> dict[str, Any]:
        """Publish a bundle as `models publish` does; `path` is where its file is put first."""
        path.write_bytes(data)
        with self.client() as client:
            return client.publish(path, self.keys_dir / "release.pem")

    def roll_out(self, version: str, devices: Sequence[str], stages: str = AT_ONCE, model: str = MODEL) -> str:
        """Give a published version to these devices, at once unless told otherwise; return the rollout's id."""
        cohort = ", ".join(f'"{name}"' for name in devices)
        plan = f"cohort = {{ devices = [{cohort}] }}\n{stages}"
        with self.client() as client:
            started = client.post(
                "/v1/rollouts", {"model": model, "version": version, "plan": plan, "unaudited": "a test"}
            )
        return str(started["id"])

    def rollout(self, rollout: str) -> dict[str, Any]:
        """Return a rollout as the control plane shows it."""
        with self.client() as client:
            return dict(client.get(f"/v1/rollouts/{rollout}"))

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of its database."""
        return read_rows(self.data_dir / "cloud.sqlite", query, *values)


@dataclass
class Device:
    """One `lineside-edge run` with a folder of its own."""

    folder: Path
    name: str = "box-1"
    cloud_url: str | None = None
    claim: str = ""
    root: Path | None = None
    bundle: bytes = field(default_factory=bundle_bytes)
    durability: str = "process"
    data: Path | None = None
    """Folder for everything it keeps; within `folder` if None."""
    source: dict[str, Any] = field(default_factory=dict)
    """Further settings of the folder source."""
    station: dict[str, Any] = field(default_factory=dict)
    more_stations: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Stations beside `main` by name; each with its own source, model, bundle, and a log of its actions."""
    link: dict[str, Any] = field(default_factory=dict)
    probation: dict[str, Any] = field(default_factory=dict)
    profile: str = "generic"
    os: dict[str, Any] = field(default_factory=dict)
    """How its operating system is updated; not at all unless said."""
    fresh: bool = False
    """Whether its process loads everything itself, for tests that look at its memory."""
    _process: subprocess.Popen[bytes] | nursery.Born | None = None

    def __post_init__(self) -> None:
        self.inbox.mkdir(parents=True, exist_ok=True)
        (self.folder / "first.lsb").write_bytes(self.bundle)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    @property
    def inbox(self) -> Path:
        """Where its camera puts pictures."""
        return self.folder / "inbox"

    @property
    def data_dir(self) -> Path:
        return self.data or self.folder / "data"

    @property
    def record(self) -> Path:
        """Its SQLite file."""
        return self.data_dir / "lineside.sqlite"

    @property
    def config(self) -> Path:
        return self.folder / "box.toml"

    @property
    def log(self) -> str:
        """What it wrote to stderr, over all starts."""
        return (self.folder / "daemon.log").read_text("utf-8", "replace")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *arguments: str) -> None:
        """Start the daemon; returns at once."""
        self.config.write_text(self._settings())
        words = ["run", "--config", str(self.config), *arguments]
        with (self.folder / "daemon.log").open("ab") as log:
            if self.fresh:
                self._process = subprocess.Popen([sys.executable, "-m", "edge", *words], stdout=log, stderr=log)
            else:
                self._process = nursery.start("edge", *words, stdout=log, stderr=log)

    def kill(self) -> None:
        """Kill it where it stands."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(timeout=STOP_S)
        self._process = None

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._ended(STOP_S)

    def drain(self, timeout_s: float) -> None:
        """Run until every picture is decided and everything is sent."""
        self.source = {**self.source, "watch": False}
        self.start("--drain")
        code = self._ended(timeout_s)
        assert code == 0, f"drain ended with {code}: {self.log[-3000:]}"

    def children(self) -> list[psutil.Process]:
        """Return its inference processes, oldest first."""
        try:
            found = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return sorted(found, key=lambda child: child.create_time())

    def private_bytes(self) -> int:
        """Return the memory that the daemon and its children share with nobody: what a leak would add to."""
        processes = [psutil.Process(self.pid), *self.children()]
        return sum(process.memory_full_info().uss for process in processes)

    def actions(self, station: str = "main") -> list[dict[str, Any]]:
        """Return what a station's actuator saw, in order."""
        path = self.folder / _actions_name(station)
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines() if line]

    def wait_for_action(self, timeout_s: float = START_S) -> None:
        """Wait until its actuator moves once more than it has now."""
        before = self._actions_size()
        self.wait_for(lambda: self._actions_size() > before, timeout_s, "its actuator to move")

    def wait_for(self, predicate: Any, timeout_s: float, what: str) -> None:
        """Wait for something, as long as the daemon runs."""

        def true_or_dead() -> bool:
            if not self.running:
                code = self._process.returncode if self._process else None
                raise AssertionError(f"{self.name} ended with {code} while {what} was waited for: {self.log[-3000:]}")
            return bool(predicate())

        wait_until(true_or_dead, timeout_s, f"{what} ({self.name})")

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of its record."""
        return read_rows(self.record, query, *values)

    def decisions(self) -> list[dict[str, Any]]:
        """Return all decisions of its record, oldest first."""
        return self.recorded("decision")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the events of its record, of one name or all."""
        return [event for event in self.recorded("event") if name in (None, event["name"])]

    def recorded(self, kind: str) -> list[dict[str, Any]]:
        """Return all rows of one kind, oldest first."""
        query = "SELECT seq, body FROM rows WHERE kind = ? ORDER BY seq"
        found = self.rows(query, kind) if self.has_record() else []
        return [{"seq": seq, **json.loads(body)} for seq, body in found]

    def has_record(self) -> bool:
        """Return whether its record is there and ready to be read."""
        return self.record.exists() and self.rows("PRAGMA user_version") != [(0,)]

    def outbox_rows(self) -> int:
        """Return how many rows the control plane has not stored."""
        query = "SELECT coalesce(max(seq), 0) - (SELECT stored_through FROM state) FROM rows"
        return int(self.rows(query)[0][0])

    def status(self) -> subprocess.CompletedProcess[str]:
        """Return what `lineside-edge status --json` says."""
        return edge("status", "--config", str(self.config), "--json", cwd=self.folder)

    def serving(self) -> str | None:
        """Return the version that it says to decide with, from its own last report."""
        reported = self.reported()
        station = reported["stations"]["main"] if reported else {}
        return station["serving"]["version"] if station.get("serving") else None

    def reported(self) -> dict[str, Any]:
        """Return the last report in its record, empty if there is none."""
        found = self.rows("SELECT value FROM meta WHERE key = 'reported'") if self.has_record() else []
        return dict(json.loads(found[0][0])) if found else {}

    @property
    def _actions(self) -> Path:
        return self.folder / _actions_name("main")

    def _actions_size(self) -> int:
        try:
            return self._actions.stat().st_size
        except FileNotFoundError:
            return 0

    def ended(self, timeout_s: float = START_S) -> int:
        """Wait until it ends by itself, as it does to restart into another system; return its exit code."""
        return self._ended(timeout_s)

    def _ended(self, timeout_s: float) -> int:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)
            raise AssertionError(f"{self.name} did not end within {timeout_s:g} s: {self.log[-3000:]}") from None
        self._process = None
        return code

    def _settings(self) -> str:
        sections: dict[str, dict[str, Any]] = {
            "device": {"name": self.name, "data": str(self.data_dir), "profile": self.profile},
            "store": {"durability": self.durability},
            "link": {"report_interval_s": 1, "telemetry_window_s": 2, "reconnect_max_s": 1, **self.link},
            "probation": {"windows": 10, "seconds": 0, **self.probation},
            "station.main": {
                "model": MODEL,
                "bundle": "first.lsb",
                "deadline_ms": 5000,  # the machine may be busy; late answers are other tests' business
                "source": {"kind": "folder", "path": "inbox", **self.source},
                "actuator": {"kind": "log", "path": "actions.jsonl"},
                **self.station,
            },
        }
        if self.os:
            sections["os"] = self.os
        for name, section in self.more_stations.items():
            actuator = {"kind": "log", "path": _actions_name(name)}
            sections[f"station.{name}"] = {"deadline_ms": 5000, "actuator": actuator, **section}
        if self.cloud_url is not None:
            sections["cloud"] = {"url": self.cloud_url, "claim": self.claim}
            if self.root is not None:
                sections["cloud"]["root"] = str(self.root)
        return "".join(f"[{name}]\n{_pairs(values)}\n" for name, values in sections.items())


def read_rows(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Return rows of an SQLite file that somebody else may be writing to."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=20)
    try:
        return list(connection.execute(query, values))
    finally:
        connection.close()


def gone(pid: int) -> bool:
    """Return whether a process has ended, also when nobody has reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def as_root() -> bool:
    """Return whether this test run may do anything."""
    return os.geteuid() == 0


def _actions_name(station: str) -> str:
    return "actions.jsonl" if station == "main" else f"actions-{station}.jsonl"


def _pairs(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)  # the same as TOML for texts, numbers, truth values and lists of them
