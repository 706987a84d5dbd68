"""Three copies of the control plane on PostgreSQL and Mosquitto, killed at random under load.

`python -m tests.faults.copies --minutes 10` runs it; the suite runs a short form.

Rules:
- Real processes, really killed: copies most of the time, the broker and the database now and then. What was killed
  comes back a moment later. The seed is printed, and draws the same faults again.
- Judged afterwards: every row that a device made is in the database, with the content that it was made with, once; the
  rollout that was started went on and is done; the audit log is whole, and shows one conductor at a time.
"""

import argparse
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pydantic_core import to_json
from sqlalchemy import Connection, func, select
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.controlplane import PASSWORD, PLACE, ControlPlane, Settings, accounts_for, names_of, take_in
from benchmarks.servers import Mosquitto, Postgres
from cloud import audit, keys, tables
from cloud.client import CloudClient
from cloud.errors import CloudError
from cloud.seat import TAKEN
from cloud.store import CloudStore
from tests.bundles import bundle_bytes
from tests.waiting import wait_until

COPIES = 3
SHARE = "ingest"
DECISIONS_PER_S = 60.0
TELEMETRY_EVERY_S = 10.0
FIRST_FAULT_S = 3.0
BETWEEN_FAULTS_S = (1.0, 4.0)
AWAY_S = (0.2, 3.0)
KINDS = ("copy", "copy", "copy", "copy", "holder", "all copies", "broker", "database")
"""Drawn from; `holder` is the copy that has the conductor's seat."""
STARTS = 5
DONE_S = 300.0
"""For the rollout to end and the devices to empty, once nothing is killed any more."""


PLAN = """
on_timeout = "hold"
[[stages]]
kind = "canary"
share = 0.1
min_s = 2
[[stages]]
kind = "ramp"
share = 0.5
min_s = 2
[[stages]]
kind = "ramp"
share = 1.0
min_s = 1
"""


@dataclass
class Findings:
    """What came out."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    resent: int = 0
    reconnects: int = 0
    terms: int = 0
    steps: int = 0
    """Of the rollout."""
    moved_under_fire: int = 0
    """Of them, while things were being killed."""
    problems: list[str] = field(default_factory=list)


def run(seconds: float, *, seed: int, devices: int = 30, say: Callable[[str], None] = print) -> Findings:
    """Run copies under load and faults for so long; return what came out."""
    findings = Findings(seed)
    with ExitStack() as stack:
        site = stack.enter_context(Site(devices, say))
        end_s = time.monotonic() + seconds
        rng = random.Random(seed)
        time.sleep(FIRST_FAULT_S)
        while time.monotonic() < end_s:
            fault = rng.choice(KINDS)
            findings.faults[fault] += 1
            site.hurt(fault, rng)
            site.see_to_rollouts()
            time.sleep(rng.uniform(*BETWEEN_FAULTS_S))
        with site.store.read() as connection:
            findings.moved_under_fire = _steps(connection)
        said = site.finish()
        findings.resent, findings.reconnects = said["resent"], said["lost_connections"]
        with site.store.read() as connection:
            judge(connection, said, findings)
    return findings


class Site:
    """Servers, copies and devices."""

    def __init__(self, devices: int, say: Callable[[str], None]) -> None:
        self._say = say
        self._stack = ExitStack()
        self._names = names_of(devices)
        self._version = 0

    def __enter__(self) -> "Site":
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="lineside-copies-")))
        self.postgres = self._stack.enter_context(Postgres())
        self.broker = self._stack.enter_context(Mosquitto())
        url = self.postgres.create("lineside")
        take_in(url, self._names)
        accounts_for(self.broker, self._names)
        self.broker.start()
        self._keys = keys.create(folder / "keys", now=datetime.now(tz=UTC).replace(microsecond=0))
        self.copies = [
            ControlPlane(Settings(folder / f"copy-{number}", url, self.broker, SHARE, self._keys))
            for number in range(COPIES)
        ]
        for copy in self.copies:
            self._stack.callback(copy.kill)
            copy.launch()
        for copy in self.copies:
            self._wait_ready(copy)
        self._release_key = folder / "keys" / "release.pem"
        self.store = CloudStore.open(url)
        self._stack.callback(self.store.close)
        self._publish("1.0.0", default=True)
        self._load = self._start_load()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def hurt(self, fault: str, rng: random.Random) -> None:
        """Kill something, and bring it back a moment later."""
        away_s = rng.uniform(*AWAY_S)
        if fault == "broker":
            self.broker.stop(signal.SIGKILL)
            time.sleep(away_s)
            self.broker.start()
        elif fault == "database":
            self.postgres.stop(signal.SIGQUIT)  # at once, without a checkpoint: what a crash leaves
            time.sleep(away_s)
            self.postgres.start()
        else:
            chosen = {"all copies": self.copies, "holder": [self._holder()]}.get(fault, [rng.choice(self.copies)])
            for copy in chosen:
                copy.kill()
            time.sleep(away_s)
            for copy in chosen:
                copy.launch()
            for copy in chosen:
                self._wait_ready(copy)
        self._say(f"killed {fault}, away {away_s:.1f} s")

    def _wait_ready(self, copy: ControlPlane) -> None:
        """Wait until it is up; start it again where it gave up, as whoever supervises it in service does."""
        for _ in range(STARTS):
            try:
                copy.wait_ready()
                return
            except RuntimeError as error:
                self._say(f"started again: {str(error).splitlines()[-1]}")
                copy.kill()
                copy.launch()
        copy.wait_ready()

    def see_to_rollouts(self) -> None:
        """Start the next rollout when the last one is done."""
        try:
            with self.store.read() as connection:
                query = select(tables.rollouts.c.id, tables.rollouts.c.status)
                states = {row.id: row.status for row in connection.execute(query)}
            if all(status == "done" for status in states.values()):
                self._start_rollout()
        except (CloudError, SQLAlchemyError, httpx.HTTPError) as error:
            self._say(f"no rollout was started: {error}")

    def finish(self) -> dict[str, Any]:
        """Wait until the rollout is done, end the load, wait until everything is stored; return what the load said.

        In this order: devices whose load has ended go away, and a rollout waits for them.
        """
        assert self._load.stdin is not None
        assert self._load.stdout is not None
        try:
            wait_until(self._is_done, DONE_S, "the rollout's end")
        except AssertionError as error:
            raise AssertionError(f"{error}, which {self._what_holds_it_up()}; its log: {self._log_lines()}") from None
        self._load.stdin.write(b"end\n")
        self._load.stdin.flush()
        said: dict[str, Any] = json.loads(self._load.stdout.readline())
        return said

    def _is_done(self) -> bool:
        with self.store.read() as connection:
            statuses = connection.execute(select(tables.rollouts.c.status)).scalars().all()
        return bool(statuses) and all(status not in ("running", "paused") for status in statuses)

    def _what_holds_it_up(self) -> str:
        query = select(tables.rollouts.c.state).order_by(tables.rollouts.c.created_at_ms.desc()).limit(1)
        with self.store.read() as connection:
            state: dict[str, Any] = connection.execute(query).scalar_one()
        age_s = time.time() - state["last_tick_ms"] / 1000
        return f"was looked at {age_s:.0f} s ago and waits for {state['waiting_for']}"

    def _log_lines(self) -> list[str]:
        query = select(tables.rollout_log.c.reason).order_by(tables.rollout_log.c.id.desc()).limit(5)
        with self.store.read() as connection:
            return list(connection.execute(query).scalars())

    def _holder(self) -> ControlPlane:
        def term(copy: ControlPlane) -> int:
            return max((int(number) for number in re.findall(r"conductor's seat, term (\d+)", copy.log)), default=0)

        return max(self.copies, key=term)

    def _start_rollout(self) -> None:
        self._version += 1
        version = f"1.{self._version}.0"
        self._publish(version)
        with CloudClient(self.copies[0].addresses["url"]) as client:
            asked = {"model": "glass", "version": version, "plan": PLAN, "why": "a test", "unaudited": "a test"}
            client.post("/v1/rollouts", asked)
        self._say(f"started the rollout of {version}")

    def _publish(self, version: str, *, default: bool = False) -> None:
        bundle = self._release_key.with_name(f"{version}.lsb")
        bundle.write_bytes(bundle_bytes(version, name="glass"))
        with CloudClient(self.copies[0].addresses["url"]) as client:
            client.publish(bundle, self._release_key, default=default, unaudited="a test" if default else "")

    def _start_load(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simload"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PLACE
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        assert process.stdin is not None
        assert process.stdout is not None
        site = {"host": "127.0.0.1", "port": self.broker.port, "password": PASSWORD}
        rates = {"decisions_per_s": DECISIONS_PER_S, "telemetry_every_s": TELEMETRY_EVERY_S, "report_every_s": 5.0}
        load = {"site": site, "names": self._names, "seed": 1, "seconds": 0, **rates}
        process.stdin.write(json.dumps(load).encode() + b"\n")
        process.stdin.flush()
        json.loads(process.stdout.readline())
        return process


def judge(connection: Connection, said: dict[str, Any], findings: Findings) -> None:
    """Hold the database against what the devices made."""
    findings.problems += lost_or_altered(connection, said, findings)
    verdict = audit.verify(connection)
    findings.problems += verdict.faults
    findings.problems += several_conductors(connection, findings)
    findings.steps = _steps(connection)
    statuses = Counter(connection.execute(select(tables.rollouts.c.status)).scalars())
    if set(statuses) - {"done"}:
        findings.problems.append(f"rollouts: expected all done, got {dict(statuses)}")
    quarantined = connection.execute(select(tables.quarantine.c.reason)).scalars().all()
    findings.problems += [f"quarantined: {reason}" for reason in quarantined]


def lost_or_altered(connection: Connection, said: dict[str, Any], findings: Findings) -> list[str]:
    """Return which devices' rows are not in the database exactly as they were made."""
    problems = []
    for device, made in said["made"].items():
        rows = []
        for table in (tables.decisions, tables.telemetry):
            query = select(table.c.seq, table.c.body).where(table.c.device == device)
            rows += [(row.seq, row.body) for row in connection.execute(query)]
        findings.rows += len(rows)
        if sorted(seq for seq, _ in rows) != list(range(1, made + 1)):
            problems.append(f"{device}: made {made} rows, {len(rows)} are there")
        hashed = hashlib.sha256()
        for _, body in sorted((seq, body) for seq, body in rows if body["kind"] == "decision"):
            hashed.update(to_json(body))
        if hashed.hexdigest() != said["sums"][device]:
            problems.append(f"{device}: its decisions are not as they were made")
    return problems


def several_conductors(connection: Connection, findings: Findings) -> list[str]:
    """Return where the audit log shows a conductor that acted after another one had taken the seat."""
    problems, term, copy = [], 0, ""
    query = select(tables.audit_log).where(tables.audit_log.c.who == audit.CONDUCTOR).order_by(tables.audit_log.c.id)
    for row in connection.execute(query):
        if row.what == TAKEN:
            if row.data["term"] != term + 1:
                problems.append(f"audit row {row.id}: term {row.data['term']} follows term {term}")
            term, copy = row.data["term"], row.data["copy"]
        elif "term" in row.data and (row.data["term"], row.data["copy"]) != (term, copy):
            problems.append(f"audit row {row.id}: moved in term {row.data['term']} while it was term {term}")
    findings.terms = term
    return problems


def _steps(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(tables.rollout_log)).scalar_one()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--devices", type=int, default=100)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    found = run(60 * given.minutes, seed=given.seed, devices=given.devices, say=lambda text: print(text, flush=True))
    print(json.dumps(asdict(found), indent=2))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
