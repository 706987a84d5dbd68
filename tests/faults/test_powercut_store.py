"""Power is cut at every write, sync and name of the record with durability `power`: what was promised is there.

A decision is promised when `append_decision` returns, which is before anything moves. SQLite's own writes are seen by a
library in front of the C library's (`disklog.c`).
"""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from edge.store import Store
from tests.clocks import HeldClock
from tests.faults import disklog
from tests.faults.powercut import FATES, Disk, restore

PROGRAM = """
import os, sys, threading
from pathlib import Path
from edge.clock import SystemClock
from edge.groupsync import GroupSync
from edge.store import Store
from tests.rows import decision, outcome

folder = Path(sys.argv[1])
promises = os.open(folder / "promises", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
group = GroupSync()

def write(thread):
    store = Store.open(folder / "lineside.sqlite", clock=SystemClock(), durability=sys.argv[2], group=group)
    for number in range(12):
        key = f"{thread}-{number}"
        raw = key.encode() * 300
        keep = (raw, "image/jpeg") if number % 3 == 0 else None
        row = store.append_decision(decision(key, raw=raw), input_key=key, keep=keep)
        os.write(promises, f"{row.seq} {key}\\n".encode())
        store.append_outcome(outcome(row.seq))
        if number == 6:
            store.prune()
    store.append_event("bundle_failed", boot_id="boot", severity="alarm", detail="it crashed")
    store.close()

threads = [threading.Thread(target=write, args=(thread,)) for thread in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
write(2)  # a second life, after the log was emptied into the record
"""
LOOKED_AT = 400
"""Writes after which the power is cut; all syncs, names and promises come on top."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return disklog.built(tmp_path_factory.mktemp("disklog"))


def run(tmp_path: Path, library: Path, durability: str) -> tuple[Path, bytes]:
    """Let a program keep a record; return its folder and what it did there."""
    folder = tmp_path / "data"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder), durability]
    return folder, disklog.logged(command, folder, library, tmp_path / "log")


@pytest.mark.timeout(300)
def test_record_whose_power_is_cut_anywhere_opens_undamaged_with_every_promised_decision(
    tmp_path: Path, library: Path, rng: random.Random
) -> None:
    folder, log = run(tmp_path, library, "power")
    total = sum(1 for _ in disklog.moments(log))
    tried: Counter[int] = Counter()
    for disk, what, promises in disklog.moments(log):
        looked_at = what != disklog.WRITTEN or rng.random() < LOOKED_AT / total
        for fate in FATES if looked_at else ():
            names = rng.choice([0, len(disk.pending), rng.randint(0, len(disk.pending))])
            missing = lost(folder, disk, promises, rng, names, fate)
            assert missing == [], f"after operation {sum(tried.values())} ({what}), {names} names, data {fate}"
        tried[what] += 1
    print(f"{dict(tried)} operations, {len(promises)} promises")
    assert len(promises) == 36
    assert min(tried[disklog.WRITTEN], tried[disklog.SYNCED]) > 20 and tried[disklog.DROPPED] > 0


def test_durability_process_is_found_to_promise_less(tmp_path: Path, library: Path, rng: random.Random) -> None:
    """The disk is of use only if it finds what it is for."""
    folder, log = run(tmp_path, library, "process")
    states = [(disk.frozen(), list(promises)) for disk, _, promises in disklog.moments(log)]
    assert any(lost(folder, disk, promises, rng, 0, "lost") for disk, promises in rng.sample(states, 20))


def lost(folder: Path, disk: Disk, promises: list[str], rng: random.Random, names: int, fate: str) -> list[str]:
    """Return which promises a cut has broken, and whatever else is not as it should be then."""
    restore(folder, disk.after_a_cut(rng, names=names, data=fate))
    with Store.open(folder / "lineside.sqlite", clock=HeldClock(), durability="power") as store:
        rows = list(store.rows(limit=1000))
        there = {f"{row.seq} {row.input.name}" for row in rows if row.kind == "decision"}
        problems = [promise for promise in promises if promise not in there]
        if sorted(row.seq for row in rows) != list(range(1, len(rows) + 1)):
            problems.append(f"holes: {[row.seq for row in rows]}")
    if promises and any(folder.glob("*damaged*")):
        problems.append("it was taken for damaged")
    return problems
