"""How many devices does one control plane carry, what does each of them cost, and how fast does it store?

Rules:
- Devices speak the real contract over a real broker to the real process; load, broker and control plane share the
  machine, and the load's own processor time is printed beside theirs.
- Nothing counts that is not in the database: rows are counted there, and held against what was acknowledged. `waiting`
  is what a device still holds at the end, `lost` what it was told is stored and is not.
- Steady is what a fleet does all day: a window of telemetry a minute from each device, decisions at a total rate.
  Full is as fast as it stores: each device sends as much as is acknowledged.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from benchmarks import storing
from benchmarks.controlplane import PASSWORD, PLACE, ControlPlane, Settings, accounts_for, names_of, take_in
from benchmarks.servers import Mosquitto, Postgres
from benchmarks.simdevice import METRICS_PER_WINDOW
from benchmarks.tables import print_table
from cloud import tables
from cloud.store import CloudStore

LADDER = (100, 1000, 5000)
DECISIONS_PER_S = 100.0
FLOODING = 40
"""Devices that send at full speed: as many as a reconnect after an outage brings at the same time, and no more."""
PRIVATE = "postgresql"
"""As database: a PostgreSQL of the bench's own, for the time of the run."""
SEED = 7

Said = dict[str, Any]
"""What the process of the load has said."""


@dataclass(frozen=True)
class Question:
    """What is asked."""

    devices: int = 5000
    seconds: float = 60.0
    database: str | None = None
    """URL, `postgresql` for a private server, None for SQLite."""
    broker: str = "embedded"
    telemetry_every_s: float = 60.0
    decisions_per_s: float = DECISIONS_PER_S
    folder: Path | None = None


def main(question: Question, *, as_json: bool = False) -> list[dict[str, Any]]:
    """Measure and print."""
    counts = [count for count in LADDER if count < question.devices] + [question.devices]
    steady = [_told(_steady(question, count)) for count in counts]
    print_table(f"Steady, {_shown(question)}", steady, as_json=as_json)
    full = [_told(_full(question, kind)) for kind in ("decision", "telemetry")]
    print_table(f"As fast as it stores, {_shown(question)}", full, as_json=as_json)
    kept = _storing(question)
    print_table(f"What keeping a row costs, {_shown(question)}", kept, as_json=as_json)
    return steady + full + kept


def _storing(question: Question) -> list[dict[str, Any]]:
    with _database(question) as (url, _):
        return [_told(row) for row in storing.measure(url)]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """Say a result as soon as it is there: the whole takes minutes."""
    shown = {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}
    sys.stderr.write(f"load average {os.getloadavg()[0]:.1f}: {json.dumps(shown)}\n")
    return row


def _shown(question: Question) -> str:
    engine = "sqlite" if question.database is None else question.database.partition(":")[0]
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{engine}, broker {question.broker}, {load}"


def _steady(question: Question, count: int) -> dict[str, Any]:
    with _plant(question, count) as plant:
        rate = question.decisions_per_s * min(1.0, count / question.devices)
        spec = {"telemetry_every_s": question.telemetry_every_s, "decisions_per_s": rate}
        ready, use, done = plant.put_under(spec, question.seconds)
        kept = plant.kept()
    minutes = done["took_s"] * count / 60
    return {
        "devices": count,
        "connect_s": ready["connect_s"],
        "messages_per_s": done["messages"] / done["took_s"],
        "rows_per_s": done["rows"] / done["took_s"],
        "rows_made": sum(done["made"].values()),
        "rows_kept": kept,
        "waiting": done["waiting"],
        "lost": max(sum(done["made"].values()) - done["waiting"] - kept, 0),
        "resent": done["resent"],
        "reconnects": done["lost_connections"],
        "ack_p50_ms": done["ack_p50_ms"],
        "ack_p99_ms": done["ack_p99_ms"],
        **_shares(use, done),
        "cloud_cpu_ms_per_device_minute": 1000 * use["cloud"] / minutes,
        "cloud_rss_mb": use["cloud_rss_mb"],
        "cloud_kb_per_device": 1000 * use["grown_mb"] / count,
        "broker_rss_mb": use["broker_rss_mb"],
        "payload_bytes_per_message": done["payload_bytes"] / max(done["messages"], 1),
        "database_bytes_per_row": use["database_bytes"] / max(kept, 1),
    }


def _full(question: Question, kind: str) -> dict[str, Any]:
    count = min(FLOODING, question.devices)
    with _plant(question, count) as plant:
        _, use, done = plant.put_under({"flood": kind}, question.seconds)
        kept = plant.kept()
    per_s = done["stored_in_time"] / done["took_s"]
    return {
        "kind": kind,
        "devices": count,
        "rows_per_s": per_s,
        "metrics_per_s": per_s * METRICS_PER_WINDOW if kind == "telemetry" else None,
        "rows_made": sum(done["made"].values()),
        "waiting": done["waiting"],
        "lost": max(sum(done["made"].values()) - done["waiting"] - kept, 0),
        "resent": done["resent"],
        "ack_p50_ms": done["ack_p50_ms"],
        "ack_p99_ms": done["ack_p99_ms"],
        **_shares(use, done),
        "cloud_us_per_row": 1e6 * use["cloud"] / max(sum(done["made"].values()), 1),
        "cloud_rss_mb": use["cloud_rss_mb"],
        "database_bytes_per_row": use["database_bytes"] / max(kept, 1),
    }


def _shares(use: dict[str, float], done: dict[str, Any]) -> dict[str, float]:
    """Return how much of one core each part took, in percent."""
    took_s = use["seconds"]
    return {
        "cloud_cpu": 100 * use["cloud"] / took_s,
        "broker_cpu": 100 * use["broker"] / took_s,
        "database_cpu": 100 * use["database"] / took_s,
        "load_cpu": 100 * done["cpu_s"] / took_s,
    }


@dataclass(frozen=True)
class _Plant:
    """A control plane with its parts."""

    cloud: ControlPlane
    broker: Mosquitto | None
    postgres: Postgres | None
    names: list[str]

    def put_under(
        self, spec: dict[str, Any], seconds: float
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
        """Run the load; return what it said at first, what the parts used, and what it said at last."""
        site = {"host": "127.0.0.1", "port": self.cloud.broker_port, "password": PASSWORD}
        load = {"site": site, "names": self.names, "seed": SEED, "seconds": seconds, **spec}
        empty_mb = self.cloud.processes()[0].memory_info().rss / 1e6
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simload"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PLACE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(load).encode() + b"\n")
            process.stdin.flush()
            ready = json.loads(process.stdout.readline())
            sys.stderr.write(f"{ready['ready']} devices connected within {ready['connect_s']:.1f} s\n")
            before, began_s = self._cpu_s(), time.monotonic()
            done = json.loads(process.stdout.readline())
        use = {name: spent - before[name] for name, spent in self._cpu_s().items()}
        return ready, {"seconds": time.monotonic() - began_s, **use, **self._memory(empty_mb)}, done

    def kept(self) -> int:
        """Return how many rows are in the database."""
        store = CloudStore.open(self.cloud.settings.database)
        with store.read() as connection:
            counts = [
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (tables.decisions, tables.telemetry, tables.events, tables.outcomes)
            ]
        store.close()
        return int(sum(counts))

    def _cpu_s(self) -> dict[str, float]:
        own, child = self.cloud.processes()
        broker = child or (psutil.Process(self.broker.pid) if self.broker is not None else None)
        database = [] if self.postgres is None else _family(psutil.Process(self.postgres.pid))
        return {"cloud": _spent(own), "broker": _spent(broker), "database": sum(map(_spent, database))}

    def _memory(self, empty_mb: float) -> dict[str, float]:
        own, child = self.cloud.processes()
        broker = child or (psutil.Process(self.broker.pid) if self.broker is not None else None)
        rss_mb = own.memory_info().rss / 1e6
        return {
            "cloud_rss_mb": rss_mb,
            "grown_mb": rss_mb - empty_mb,
            "broker_rss_mb": broker.memory_info().rss / 1e6 if broker is not None else 0.0,
            "database_bytes": self._database_bytes(),
        }

    def _database_bytes(self) -> float:
        if self.cloud.settings.database.startswith("sqlite"):
            file = Path(self.cloud.settings.database.removeprefix("sqlite:///"))
            return float(file.stat().st_size)
        store = CloudStore.open(self.cloud.settings.database)
        with store.read() as connection:
            size = connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
        store.close()
        return float(size)


@contextmanager
def _database(question: Question) -> Iterator[tuple[str, Postgres | None]]:
    """Give the URL of an empty database; one that was named is taken as it is."""
    if question.database == PRIVATE:
        with Postgres() as postgres:
            yield postgres.create("lineside"), postgres
    elif question.database is not None:
        yield question.database, None
    else:
        with tempfile.TemporaryDirectory(prefix="lineside-fleet-", dir=question.folder) as folder:
            yield f"sqlite:///{Path(folder) / 'cloud.sqlite'}", None


@contextmanager
def _plant(question: Question, count: int) -> Iterator[_Plant]:
    with ExitStack() as stack:
        url, postgres = stack.enter_context(_database(question))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lineside-fleet-", dir=question.folder)))
        names = names_of(count)
        take_in(url, names)
        broker = stack.enter_context(Mosquitto()) if question.broker == "mosquitto" else None
        if broker is not None:
            accounts_for(broker, names)
            broker.start()
        cloud = ControlPlane(Settings(folder / "cloud", url, broker))
        cloud.start()
        stack.callback(cloud.stop)
        yield _Plant(cloud, broker, postgres, names)


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _spent(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.user + used.system)
