"""Health against the kernel's own figures and real child processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.errors import StoreError
from edge.health import measure, memory_of, memory_of_children, temperature_c
from edge.store import Store
from tests.rows import decision

CHILD = """
import sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
print("ready", flush=True)
sys.stdin.read()
"""


def test_report_counts_outbox_uploads_and_disk(tmp_path: Path) -> None:
    with Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process") as store:
        store.append_decision(decision(raw=b"x", at_ms=123), input_key=None, keep=(b"x", "image/jpeg"))
        health = measure(store, tmp_path, uptime_s=12.5)
    assert health.uptime_s == 12.5
    assert (health.outbox_rows, health.uploads_waiting, health.oldest_unsent_ms) == (1, 1, 123)
    assert health.outbox_bytes > 100
    assert abs(health.disk_free_bytes - os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize) < 2**30
    assert health.extra["cpu_s"] > 0


def test_memory_given_for_children_is_added_not_measured_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process") as store:
        own = memory_of(os.getpid())
        health = measure(store, tmp_path, uptime_s=1, children_bytes=10 * 2**30)
    assert abs(health.memory_bytes - own - 10 * 2**30) < 64 * 2**20


def test_memory_of_children_and_grandchildren_is_counted() -> None:
    before = memory_of_children(os.getpid())
    size = 40 * 2**20
    inner = [sys.executable, "-c", CHILD, str(size)]
    outer = f"import subprocess, sys; sys.exit(subprocess.run({inner!r}).returncode)"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        grown = memory_of_children(os.getpid()) - before
        assert size < grown < size + 60 * 2**20
        child.communicate(b"")
    assert memory_of(child.pid) == 0


def test_hottest_sensor_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    assert temperature_c(thermal=tmp_path) is None
    for number, text in enumerate(["41000\n", "58500\n", "not a number"]):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    assert temperature_c(thermal=tmp_path) == 58.5


def test_record_that_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process")
    store.close()
    with pytest.raises(StoreError):
        measure(store, tmp_path, uptime_s=1)
