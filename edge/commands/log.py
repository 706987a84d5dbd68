"""`lineside-edge log`: the last rows of the device's own record, for people or as JSON lines."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from edge.clock import SystemClock
from edge.config import load_config
from edge.station import store_path
from edge.store import Store
from edge.wire.rows import DecisionRow


def run(config_path: Path, *, last: int, as_json: bool, out: TextIO | None = None) -> int:
    """Print the last decisions, oldest first; return the exit code."""
    path = store_path(load_config(config_path))
    with Store.open_read_only(path, clock=SystemClock()) as store:
        for row in reversed(store.last_decisions(last)):
            print(row.model_dump_json() if as_json else as_line(row), file=out)
    return 0


def as_line(row: DecisionRow) -> str:
    """Return a decision as a line for people."""
    at = datetime.fromtimestamp(row.at_ms / 1000, UTC).astimezone().isoformat(" ", "milliseconds")[:23]
    confidence = "" if row.confidence is None else f"{row.confidence:.3f}"
    version = row.bundle.version if row.bundle else "-"
    why = f"  {row.reason}" + (f": {row.detail}" if row.detail else "") if row.reason else ""
    said = f"  “{row.text}”" if row.text is not None else ""
    return (
        f"{row.seq:>8}  {at}  {row.station:<10} {version:<8} {row.verdict:<7} {row.label or '-':<16} "
        f"{confidence:>5} {row.latency_ms.get('total', 0):8.2f} ms  {row.input.name}{said}{why}"
    )
