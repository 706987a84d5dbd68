"""Measures the device's own state: memory, disk, outbox, temperature.

Rules:
- Memory is the proportional set size (PSS, proc(5)): what several processes share is counted once.
- What this machine does not tell is None or left out, never a guess.
"""

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edge.dropping import counted_words
from edge.processor import PROC, children, cpu_seconds
from edge.store import WRITTEN_TODAY, Store
from edge.wire.messages import Health

THERMAL = Path("/sys/class/thermal")


def measure(
    store: Store,
    folder: Path,
    *,
    uptime_s: float,
    children_bytes: int | None = None,
    cpu_percent: float | None = None,
    cores: Collection[int] | None = None,
) -> Health:
    """Return the state of the device now; takes a few milliseconds.

    Args:
        store: the record whose outbox counts.
        folder: a folder on the disk that matters.
        uptime_s: seconds since the daemon started.
        children_bytes: memory of the child processes if it is known already; None to measure them.
        cpu_percent: share of one core that daemon and children use, None if it is not known yet.
        cores: what the daemon is held to, None for nothing.

    Raises:
        StoreError: the record cannot be read.
    """
    outbox = store.outbox_size()
    of_children = memory_of_children(os.getpid()) if children_bytes is None else children_bytes
    return Health(
        uptime_s=round(uptime_s, 3),
        memory_bytes=memory_of(os.getpid()) + of_children,
        disk_free_bytes=shutil.disk_usage(folder).free,
        outbox_rows=outbox.rows,
        outbox_bytes=outbox.bytes,
        oldest_unsent_ms=outbox.oldest_at_ms,
        uploads_waiting=store.inputs.waiting(),
        cpu_percent=cpu_percent,
        temperature_c=temperature_c(),
        extra={
            **_extra(),
            **({} if cores is None else {"cores": list(cores)}),
            **_written(store),
            **_dropped(store),
        },
    )


def memory_of(pid: int, *, proc: Path = PROC) -> int:
    """Return the PSS of one process in bytes; 0 if it is gone or not ours."""
    try:
        for line in (proc / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def memory_of_children(pid: int, *, proc: Path = PROC) -> int:
    """Return the PSS of all descendants of a process in bytes."""
    return sum(memory_of(child, proc=proc) + memory_of_children(child, proc=proc) for child in children(pid, proc=proc))


def temperature_c(*, thermal: Path = THERMAL) -> float | None:
    """Return the hottest sensor of the machine in degrees Celsius, or None if it has none."""
    found = [value for path in thermal.glob("thermal_zone*/temp") if (value := _millidegrees(path)) is not None]
    return max(found) / 1000 if found else None


def _millidegrees(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def written_bytes(*, proc: Path = PROC) -> int:
    """Return what this process has caused to be written to disks since it started (proc(5)); 0 if that is not told."""
    try:
        lines = (proc / "self" / "io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
    except (OSError, StopIteration, ValueError):
        return 0


def _written(store: Store) -> dict[str, Any]:
    """What was written today and what was left out for it, once the daemon has counted it."""
    kept = store.get_meta(WRITTEN_TODAY)
    return {} if kept is None else {"written_today": json.loads(kept)}


def _dropped(store: Store) -> dict[str, Any]:
    """What is in the record no more, or was never written to it, in numbers and for people; nothing for nothing."""
    counts = store.dropped()
    words = counted_words(counts)
    return {"dropped": {**counts, "words": words}} if words else {}


def _extra() -> dict[str, Any]:
    # Cumulative, of the daemon and its children together, so that any two reports give the share between them.
    return {"cpu_s": round(cpu_seconds(os.getpid()), 2), "load_1m": round(os.getloadavg()[0], 2)}
