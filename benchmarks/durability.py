"""What does it cost that a decision survives a power cut, and what do several stations share of it?

Rules:
- The floor is durability `process`, measured in the same run; a window is a decision and its outcome, as fast as goes.
- On the disk that holds `--folder`: a RAM disk would say nothing.
"""

import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import print_table
from edge.clock import SystemClock
from edge.database import Durability
from edge.groupsync import GroupSync
from edge.store import Store
from edge.wire.base import BundleRef
from edge.wire.rows import DecisionRow, InputRef, OutcomeRow

STATIONS = (1, 2, 4)
WINDOWS = 400
"""Of each station."""
_BUNDLE = BundleRef(name="glass", version="1.0.0", digest="a" * 64, size_bytes=1)
_INPUT = InputRef(source="camera", name="1", digest="b" * 64, media_type="image/png", size_bytes=1, kept=False)


def main(folder: Path | None = None, *, as_json: bool = False, windows: int = WINDOWS) -> list[dict[str, Any]]:
    """Measure both durabilities with one, two and four stations, and print the table."""
    rows = [
        _measured(folder, durability, stations, windows) for stations in STATIONS for durability in ("process", "power")
    ]
    print_table("Decisions and outcomes recorded", rows, as_json=as_json)
    return rows


def _measured(folder: Path | None, durability: Durability, stations: int, windows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path, group = Path(own) / "lineside.sqlite", GroupSync()
        times_ms = np.zeros((stations, windows))
        ready = threading.Barrier(stations + 1)

        def run(number: int) -> None:
            with Store.open(path, clock=SystemClock(), durability=durability, group=group) as store:
                ready.wait()
                for window in range(windows):
                    started = time.perf_counter()
                    _record(store, f"station-{number}")
                    times_ms[number, window] = (time.perf_counter() - started) * 1000

        threads = [threading.Thread(target=run, args=(number,)) for number in range(stations)]
        for thread in threads:
            thread.start()
        ready.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        took_s = time.perf_counter() - started
    p50, p99 = np.percentile(times_ms, [50, 99])
    return {
        "durability": durability,
        "stations": stations,
        "decisions_per_s": round(stations * windows / took_s, 1),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
    }


def _record(store: Store, station: str) -> None:
    at_ms = time.time_ns() // 1_000_000
    row = DecisionRow(
        seq=1, station=station, at_ms=at_ms, boot_id="b", monotonic_ms=at_ms, mode="partial", verdict="pass",
        action="pass", label="good", confidence=0.99, scores={"good": 0.99, "bad": 0.01}, bundle=_BUNDLE,
        runtime="onnxruntime", input=_INPUT, latency_ms={"total": 3.0},
    )  # fmt: skip
    decision = store.append_decision(row, input_key=None)
    store.append_outcome(OutcomeRow(seq=1, decision_seq=decision.seq, at_ms=at_ms, state="done", actuator="log"))
