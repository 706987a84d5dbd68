"""What does it cost to keep a row, of messages with one row and of messages with many?

Rules:
- The real ingest over the real database in this process, without broker: processor time, not wall time, because the
  machine may be busy. The database server's own time is not in it.
- `rows_per_s_of_a_core` is what a core of its own would do, computed from that.
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from benchmarks.controlplane import names_of, take_in
from benchmarks.simdevice import METRICS_PER_WINDOW, decision, telemetry
from cloud.blobs import BlobStore
from cloud.clock import SystemClock
from cloud.config import IngestConfig
from cloud.ingest import Incoming, Ingest
from cloud.store import CloudStore
from edge.wire.topics import topic

DEVICES = 100
GROUPS = 8
SHAPES = (("decision", 1), ("decision", 50), ("telemetry", 1), ("telemetry", 10))
"""Kind and rows in a message: as it comes, and as it comes after an outage."""


class _Nowhere:
    def publish(self, topic_name: str, payload: bytes, *, retain: bool) -> None:
        """Drop it."""


def measure(url: str, *, groups: int = GROUPS) -> list[dict[str, Any]]:
    """Return the cost of each shape on an empty database."""
    take_in(url, names_of(DEVICES))
    store = CloudStore.open(url)
    with tempfile.TemporaryDirectory() as folder:
        inputs = BlobStore(Path(folder), max_bytes=1024)
        ingest = Ingest(store, inputs, SystemClock(), _Nowhere(), IngestConfig())
        found = [_cost(ingest, kind, count, groups) for kind, count in SHAPES]
    store.close()
    return found


def _cost(ingest: Ingest, kind: str, count: int, groups: int) -> dict[str, Any]:
    rng = random.Random(1)  # noqa: S311  (the same rows every time)
    made = [_group(rng, kind, count, number) for number in range(groups + 1)]
    ingest.store_group(made[0])  # compiles the statements
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    for group in made[1:]:
        ingest.store_group(group)
    spent_s, took_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
    rows = sum(len(group) for group in made[1:]) * count
    metrics = METRICS_PER_WINDOW if kind == "telemetry" else None
    return {
        "kind": kind,
        "rows_per_message": count,
        "cpu_us_per_row": 1e6 * spent_s / rows,
        "rows_per_s_of_a_core": rows / spent_s,
        "metrics_per_s_of_a_core": metrics and metrics * rows / spent_s,
        "rows_per_s_here": rows / took_s,
    }


def _group(rng: random.Random, kind: str, count: int, number: int) -> list[Incoming]:
    """Return a group as ingest takes it: 25 messages of different devices."""
    names = names_of(DEVICES)
    size = IngestConfig().group_messages
    group = []
    for place in range(number * size, (number + 1) * size):
        first = place // DEVICES * count
        seqs = range(first + 1, first + 1 + count)
        rows = [decision(seq, rng, None) if kind == "decision" else telemetry(seq, rng) for seq in seqs]
        name = names[place % DEVICES]
        document = {"kind": "up", "device": name, "incarnation": f"{kind}-{count}", "rows": rows}
        group.append(Incoming(topic(name, "up"), to_json(document), False, lambda: None))
    return group
