"""`lineside-edge forget`: erases kept pictures and sounds from the device's record, by time or by decision.

Rules:
- The bytes are overwritten, not only unlinked, and an event with their digests stays as the proof.
- Decisions stay: what was decided, when and why is no picture. What the control plane has is erased there.
- Exit codes: 0 erased (also when there was nothing), 2 wrong arguments.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import TextIO

from edge.clock import SystemClock
from edge.config import load_config
from edge.errors import ConfigError
from edge.station import store_path
from edge.store import Store


def run(config_path: Path, *, before: str | None, decisions: list[int], why: str, out: TextIO = sys.stdout) -> int:
    """Erase; return the exit code.

    Args:
        config_path: the device's config.
        before: ISO 8601 time; inputs kept before it are erased.
        decisions: numbers of decisions whose inputs are erased.
        why: for the proof.
        out: where to print.
    """
    if (before is None) == (not decisions):
        raise ConfigError("expected either --before TIME or numbers of decisions", hint="lineside-edge forget --help")
    config = load_config(config_path)
    path = store_path(config)
    if not path.exists():
        raise ConfigError(f"no record at {path}", hint="nothing was ever kept here")
    with Store.open(path, clock=SystemClock(), durability="power") as store:
        digests = store.inputs.before(_milliseconds(before)) if before else _inputs_of(store, decisions)
        erased = store.forget(digests, why=why)
    print(f"{erased} kept inputs erased; the proof is in the record, as event inputs_forgotten", file=out)
    return 0


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--before: expected a time like 2026-05-31T12:00, got {text!r}") from error
    return int(moment.astimezone().timestamp() * 1000)


def _inputs_of(store: Store, decisions: list[int]) -> list[str]:
    found = {number: store.decision(number) for number in decisions}
    missing = [str(number) for number, row in found.items() if row is None]
    if missing:
        raise ConfigError(f"no decision {', '.join(missing)} in this record", hint="lineside-edge log shows numbers")
    return [row.input.digest for row in found.values() if row is not None]
