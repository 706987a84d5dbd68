"""How long from starting the daemon to its first decision, and how much memory does it take?

Rules:
- The real command in a process of its own, with the network in its child process, the bundle's digest checked and its
  golden examples replayed; a picture already waits in the folder.
- The end is the actuator's first line. Memory is the proportional share (PSS) of daemon and child after decisions.
"""

import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.mobilenet import write_bundle
from benchmarks.overhead import Pictures
from benchmarks.tables import print_table

RUNS = 7
FIRST_TARGET_S, MEMORY_TARGET_MB = 1.0, 150.0
LONGEST_S = 60.0
SETTLE_DECISIONS = 50
PICTURES = 64

CONFIG = """\
[device]
name = "bench"
[station.main]
model = "mobilenet_224"
bundle = "mobilenet.lsb"
source = { kind = "folder", path = "inbox" }
actuator = { kind = "log", path = "actions.jsonl" }
"""


@dataclass(frozen=True)
class Result:
    """The figures of all runs."""

    runs: int
    first_decision_s_median: float
    first_decision_s_worst: float
    target_s: float
    memory_mb_median: float
    memory_mb_worst: float
    target_mb: float


def main(*, as_json: bool = False, runs: int = RUNS) -> list[dict[str, Any]]:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "mobilenet.lsb"
        write_bundle(bundle)
        measured = [_run(bundle) for _ in range(runs + 1)][1:]  # the first warms the disk's cache
    times, memory = [t for t, _ in measured], [m for _, m in measured]
    result = Result(
        runs=runs,
        first_decision_s_median=statistics.median(times),
        first_decision_s_worst=max(times),
        target_s=FIRST_TARGET_S,
        memory_mb_median=statistics.median(memory),
        memory_mb_worst=max(memory),
        target_mb=MEMORY_TARGET_MB,
    )
    rows = [asdict(result)]
    print_table("Start of the daemon and its memory, child process included", rows, as_json=as_json)
    return rows


def _run(bundle: Path) -> tuple[float, float]:
    """Return (seconds to the first decision, megabytes) of one start on an empty device."""
    with tempfile.TemporaryDirectory() as folder:
        device = Path(folder)
        (device / "mobilenet.lsb").hardlink_to(bundle)
        (device / "box.toml").write_text(CONFIG)
        (device / "inbox").mkdir()
        source = Pictures(decoding=False)
        for number in range(PICTURES):
            window = source.read(0)
            assert window is not None and window.raw is not None
            (device / "inbox" / f"{number}.jpg").write_bytes(window.raw)
        started = time.perf_counter()
        command = [sys.executable, "-m", "edge", "run", "--config", str(device / "box.toml")]
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        try:
            _wait_for_lines(device / "actions.jsonl", 1)
            first_s = time.perf_counter() - started
            _wait_for_lines(device / "actions.jsonl", SETTLE_DECISIONS)
            return first_s, _memory_mb(daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(LONGEST_S)


def _wait_for_lines(path: Path, count: int) -> None:
    until = time.perf_counter() + LONGEST_S
    while time.perf_counter() < until:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)
    raise TimeoutError(f"{path.name}: no {count} lines within {LONGEST_S} s")


def _memory_mb(pid: int) -> float:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = [entry.name for entry in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        children += Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
    return sum(_pss_kb(int(one)) for one in {str(pid), *children}) / 1024


def _pss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main(as_json="--json" in sys.argv)
