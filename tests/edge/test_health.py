"""Health against the kernel's own figures and real child processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.clock import SystemClock
from edge.commands.status import as_text
from edge.errors import StoreError
from edge.health import measure, memory_of, memory_of_children, temperature_c
from edge.retention import StoreLimits
from edge.store import Store
from edge.wear import WriteBudget
from edge.wire.messages import Reported
from tests.contract.samples import SAMPLES
from tests.rows import decision, telemetry

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


def test_what_was_dropped_and_left_out_is_reported_in_numbers_and_words(tmp_path: Path) -> None:
    budget = WriteBudget(1000, ("deferred_inputs",))
    limits = StoreLimits(input_bytes=1, unsent_telemetry_rows=1)
    with Store.open(
        tmp_path / "record.db", clock=SystemClock(), durability="process", limits=limits, budget=budget
    ) as store:
        assert "dropped" not in measure(store, tmp_path, uptime_s=1).extra
        for _ in range(4):
            store.append_telemetry(telemetry())
        store.append_decision(decision(raw=b"xx"), input_key=None, keep=(b"xx", "image/jpeg"))
        store.prune()
        store.count_written(1000)
        store.append_decision(decision(raw=b"y", reason="unsure"), input_key=None, keep=(b"y", "image/jpeg"))
        store.count_written(0)
        told = measure(store, tmp_path, uptime_s=1).extra["dropped"]
    assert told["dropped"] == {"confident_inputs": 1, "telemetry": 3, "unsent_inputs": 1}
    assert told["left_out"] == {"deferred_inputs": 1}
    assert told["words"] == (
        "dropped since this record began: 3 windows of telemetry, 1 inputs of sure decisions; 4 of them were nowhere "
        "else; not written for the budget of written bytes: 1 inputs of deferrals"
    )
    (sample,) = (sample for sample in SAMPLES if isinstance(sample, Reported))
    reported = sample.model_copy(update={"health": sample.health.model_copy(update={"extra": {"dropped": told}})})
    assert told["words"] in as_text(reported, 1, fresh=True, outbox_rows=0, rules={}, link="connected")


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
