"""Runs the real command as a device of its own for a benchmark, and says what processor time it takes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.clock import SystemClock
from edge.errors import LinesideError
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow

LONGEST_S = 120.0
POLL_S = 0.02


@contextmanager
def running(folder: Path, config: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `lineside-edge run` in a folder with this configuration; it is ended with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "device.toml").write_text(config)
    command = [sys.executable, "-m", "edge", "run", "--config", str(folder / "device.toml"), *arguments]
    with (folder / "log").open("wb") as log:
        place = Path(__file__).parents[1]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, cwd=place)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(LONGEST_S)


def wait_for(what: str, found: Callable[[], object], longest_s: float = LONGEST_S) -> None:
    """Return as soon as something is found.

    Raises:
        TimeoutError: it was not.
    """
    until_s = time.perf_counter() + longest_s
    while not found():
        if time.perf_counter() > until_s:
            raise TimeoutError(f"{what}: not within {longest_s:.0f} s")
        time.sleep(POLL_S)


def rows_of(folder: Path) -> tuple[list[DecisionRow], list[EventRow]]:
    """Return the decisions and events of the device in a folder, oldest first; none before it has begun."""
    try:
        with Store.open_read_only(folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
            rows = store.rows(limit=100_000)
    except LinesideError:
        return [], []  # not there yet, or just being made
    return [row for row in rows if isinstance(row, DecisionRow)], [row for row in rows if isinstance(row, EventRow)]


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return int(chosen.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Return the processor time in seconds that a process and its living children have taken."""
    return sum(_own_cpu_s(one) for one in [pid, *_children(pid)])


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _own_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
