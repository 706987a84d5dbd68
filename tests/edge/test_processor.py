"""The processor: which cores are chosen, that the kernel holds every thread and child to them, and what is used."""

import json
import os
import subprocess
import sys

import pytest

from edge.processor import Meter, choose, cpu_seconds
from tests.clocks import HeldClock

BURN = "import time\nuntil = time.process_time() + {seconds}\nwhile time.process_time() < until: pass\n"
BURNT_S = 0.28
"""The kernel counts in hundredths of a second."""
HOLD = """
import json, os, subprocess, sys, threading
from edge.processor import hold
went_on, held_from = threading.Event(), threading.Event()
seen = {}
def early():
    held_from.wait()
    seen["thread"] = sorted(os.sched_getaffinity(0))
thread = threading.Thread(target=early)
thread.start()
core = max(os.sched_getaffinity(0))
seen["held"] = hold([core]).cores
held_from.set()
thread.join()
child = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
seen["child"] = json.loads(subprocess.run(child, capture_output=True, text=True).stdout)
print(json.dumps({**seen, "core": core}))
"""


@pytest.mark.parametrize(
    ("wanted", "allowed", "cores", "words"),
    [
        (1, {2, 0, 1}, (0,), None),
        (3, {0, 1, 2}, (0, 1, 2), None),
        (4, {0, 1}, (0, 1), "4 cores were asked for, this process may use 2"),
        ((3, 1), {0, 1, 2, 3}, (1, 3), None),
        ((1, 7), {0, 1}, (1,), "core 7 is not there; it runs on 1"),
        ((7, 9), {0, 1}, (0, 1), "none of the cores 7, 9 is there; it runs on 0, 1"),
    ],
)
def test_cores_are_those_that_are_asked_for_and_there(
    wanted: int | tuple[int, ...], allowed: set[int], cores: tuple[int, ...], words: str | None
) -> None:
    assert choose(wanted, allowed) == (cores, words)


def test_threads_that_run_already_and_children_to_come_are_held() -> None:
    seen = json.loads(subprocess.run([sys.executable, "-c", HOLD], capture_output=True, text=True, check=True).stdout)
    assert seen["held"] == seen["thread"] == seen["child"] == [seen["core"]]


def test_time_of_children_that_run_and_of_those_that_have_ended_is_counted() -> None:
    before_s = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BURN.format(seconds=0.3)], check=True)
    ended_s = cpu_seconds(os.getpid())
    assert ended_s - before_s >= BURNT_S
    still = BURN.format(seconds=0.3) + "print('burnt', flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", still], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert cpu_seconds(os.getpid()) - ended_s >= BURNT_S
        assert cpu_seconds(child.pid) >= BURNT_S
        child.communicate(b"\n")
    assert cpu_seconds(child.pid) == 0.0


def test_meter_gives_the_share_since_it_looked_last() -> None:
    clock = HeldClock()
    meter = Meter(clock)
    meter.look()
    assert percent(meter) is None
    before_s = cpu_seconds(os.getpid())
    subprocess.run([sys.executable, "-c", BURN.format(seconds=0.3)], check=True)
    clock.forward(0.5)
    meter.look()
    assert percent(meter) is None, "too soon to say anything"
    clock.forward(0.5)
    meter.look()
    used_s = cpu_seconds(os.getpid()) - before_s
    assert 100 * BURNT_S <= (percent(meter) or 0.0) <= 100 * used_s + 1


def percent(meter: Meter) -> float | None:
    return meter.percent
