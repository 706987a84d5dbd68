"""Several stations in one real daemon: each decides by its own bundle and policy, all share record, link and cores."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from edge.errors import StoreError
from edge.processor import cpu_seconds
from edge.store import Store
from edge.wire.rows import DecisionRow
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.edge.command import edge
from tests.edge.sources.mjpeg import MjpegCamera
from tests.edge.sources.test_audio_file import put, silence, tone
from tests.faults.plant import Cloud
from tests.waiting import wait_until

DIGITS = Path(__file__).parents[2] / "models" / "spoken_digits" / "spoken_digits-1.2.0.lsb"
CONFIG = """
[device]
name = "box-1"
cores = [{core}]
[cloud]
url = "{cloud}"
claim = "{claim}"
root = "{root}"
[link]
report_interval_s = 1
[station.left]
model = "brightness"
bundle = "glass.lsb"
keep = "none"
actuator = {{ kind = "none" }}
source = {{ kind = "camera", url = "{left}" }}
[station.right]
model = "belt"
bundle = "belt.lsb"
keep = "none"
actuator = {{ kind = "none" }}
source = {{ kind = "camera", url = "{right}" }}
[station.ear]
model = "spoken_digits"
bundle = "digits.lsb"
keep = "none"
actuator = {{ kind = "none" }}
# A microphone that hears a recording over and over, faster than anybody speaks: there is always more to do.
source = {{ kind = "audio_file", path = "said.wav", loop = true, segments = {{ kind = "energy" }} }}
"""
STATIONS = {"left": "brightness", "right": "belt", "ear": "spoken_digits"}
MEASURED_S = 5.0
EACH = 20
"""Decisions of each station before anything is looked at."""
POLICY = {"kind": "inspect", "pass_max": 0.2, "divert_min": 0.8}


@dataclass
class Running:
    folder: Path
    pid: int
    core: int
    cloud: Cloud

    def decisions(self) -> list[DecisionRow]:
        try:
            with Store.open_read_only(self.folder / "data" / "lineside.sqlite", clock=HeldClock()) as store:
                return store.last_decisions(2000)
        except StoreError:
            return []  # it has only begun

    def count(self, station: str) -> int:
        return sum(row.station == station for row in self.decisions())


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stations")
    core = max(os.sched_getaffinity(0))
    for name, data in (
        ("glass", bundle_bytes()),
        ("belt", bundle_bytes(name="belt", policy=POLICY)),
        ("digits", DIGITS.read_bytes()),
    ):
        (folder / f"{name}.lsb").write_bytes(data)
    words = [part for number in range(5) for part in (silence(0.4), tone(0.4, 300.0 + 100 * number), silence(0.7))]
    put(folder / "said.wav", np.concatenate(words))
    with Cloud(folder / "cloud") as cloud, MjpegCamera() as left, MjpegCamera() as right:
        text = CONFIG.format(
            core=core, cloud=cloud.url, claim=cloud.claim("box-1"), root=cloud.root, left=left.url, right=right.url
        )
        (folder / "box.toml").write_text(text)
        command = [sys.executable, "-m", "edge", "run", "--no-live", "-c", "box.toml"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stderr=log)
        made = Running(folder, process.pid, core, cloud)
        try:
            wait_until(lambda: all(made.count(name) >= EACH for name in STATIONS), 90, "each station to decide")
            yield made
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_each_station_decides_by_its_own_bundle_and_policy_into_one_record(device: Running) -> None:
    for name, model in STATIONS.items():
        rows = [row for row in device.decisions() if row.station == name]
        assert {row.bundle.name for row in rows if row.bundle} == {model}
    policies = {row.station: row.policy for row in device.decisions() if row.policy}
    assert policies["right"] == {"pass_max": POLICY["pass_max"], "divert_min": POLICY["divert_min"]}
    assert policies["left"] != policies["right"] and policies["ear"].keys() != policies["left"].keys()


def test_all_stations_go_up_by_one_link(device: Running) -> None:
    def stations() -> set[str]:
        return {name for (name,) in device.cloud.rows("SELECT DISTINCT station FROM decisions")}

    wait_until(lambda: stations() == STATIONS.keys(), 60, "decisions of all stations in the cloud")
    assert device.cloud.rows("SELECT count(DISTINCT incarnation) FROM decisions") == [(1,)]


def test_every_thread_and_child_is_held_to_the_core_that_was_given(device: Running) -> None:
    tree = [psutil.Process(device.pid), *psutil.Process(device.pid).children(recursive=True)]
    assert len(tree) == 1 + len(STATIONS)
    for process in tree:
        for thread in process.threads():
            assert os.sched_getaffinity(thread.id) == {device.core}


def test_daemon_and_children_use_no_more_than_their_budget(device: Running) -> None:
    began_s, before_s = time.monotonic(), cpu_seconds(device.pid)
    time.sleep(MEASURED_S)  # time itself is what is measured
    used_s, took_s = cpu_seconds(device.pid) - before_s, time.monotonic() - began_s
    print(f"{used_s:.2f} s of processor in {took_s:.2f} s")
    assert 0.1 * took_s < used_s <= 1.02 * took_s, "one core, and it had work to do"


def test_status_says_what_is_used_and_what_it_is_held_to(device: Running) -> None:
    def said() -> str:
        return edge("status", "-c", "box.toml", cwd=device.folder).stdout

    held = re.compile(rf"processor \d+ % of a core, held to core {device.core},")
    wait_until(lambda: held.search(said()), 30, "the share of the processor")
    checked = edge("check", "-c", "box.toml", cwd=device.folder).stdout
    assert f"ok      cores: held to 1 of {os.cpu_count()}: {device.core}" in checked
