"""`lineside-edge forget`: erases kept pictures, sounds and texts from the device's record, by time or by decision.

Rules:
- The bytes are overwritten, not only unlinked, in the record, its log, free pages and damaged copies of it; the proof,
  an event with their digests, is part of the same transaction, and asks the control plane to erase the same.
- Decisions stay: what was decided, when and why is no picture.
- Exit codes: 0 erased (also when there was nothing), 1 erased but another program still holds the log: once more later,
  2 wrong arguments.
"""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from edge.clock import SystemClock
from edge.config import Config, load_config
from edge.erasure import Forgotten, Request
from edge.errors import ConfigError
from edge.station import store_path
from edge.store import Store

WIPE_WAIT_S = 30.0
"""Longest wait for those who read from the log: the daemon's own reads take milliseconds."""
WIPE_PAUSE_S = 0.1
SLOW_ROWS = 50_000
"""Looking through more takes over two seconds, and is said."""


def run(
    config_path: Path,
    *,
    before: str | None,
    decisions: list[int],
    station: str | None,
    why: str,
    wait_s: float = WIPE_WAIT_S,
    out: TextIO | None = None,
) -> int:
    """Erase; return the exit code.

    Args:
        config_path: the device's config.
        before: ISO 8601 time, or `now`; what was kept or understood before it is erased.
        decisions: numbers of decisions whose inputs and texts are erased.
        station: with `before`, only of this one.
        why: for the proof.
        wait_s: longest wait for those who read from the log.
        out: where to print; standard output unless said.
    """
    if (before is None) == (not decisions) or (station is not None and before is None):
        raise ConfigError(
            "expected either --before TIME, also with --station, or numbers of decisions",
            hint="lineside-edge forget --help",
        )
    config = load_config(config_path)
    request = Request(why, tuple(decisions), None if before is None else _milliseconds(before), station)
    path = store_path(config)
    if not path.exists():
        raise ConfigError(f"no record at {path}", hint="nothing was ever kept here")
    with Store.open(path, clock=SystemClock(), durability="power") as store:
        _known(store, request)
        if station is not None and station not in config.station and not store.knows(station):
            raise ConfigError(f"no station {station} in this record", hint=f"the file has: {', '.join(config.station)}")
        if store.last_seq() > SLOW_ROWS:
            print(f"looking through {store.last_seq()} rows …", file=out, flush=True)
        done = store.forget(request)
        print(_words(config, done), file=out, flush=True)
        return 0 if _wiped(store, wait_s, out) else 1


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--before: expected a time like 2026-05-31T12:00, or now, got {text!r}") from error
    return int(moment.astimezone().timestamp() * 1000)


def _known(store: Store, request: Request) -> None:
    """Refuse numbers that no decision ever had; one that was dropped here may still be at the control plane."""
    first = next(iter(store.rows(limit=1)), None)
    dropped_below = first.seq if first else 1
    missing = [str(seq) for seq in request.decisions if store.decision(seq) is None and seq >= dropped_below]
    if missing:
        raise ConfigError(f"no decision {', '.join(missing)} in this record", hint="lineside-edge log shows numbers")


def _words(config: Config, done: Forgotten) -> str:
    copies = f"; damaged copies removed: {', '.join(done.copies)}" if done.copies else ""
    cloud = "; the control plane is asked to erase the same" if config.cloud else ""
    return (
        f"{done.inputs} kept inputs erased, {done.rows} rows without text or input{copies}{cloud}; "
        "the proof is in the record, as event inputs_forgotten"
    )


def _wiped(store: Store, wait_s: float, out: TextIO | None) -> bool:
    until_s = time.monotonic() + wait_s
    while not store.wipe():
        if time.monotonic() >= until_s:
            print(
                "NOT YET gone from the write-ahead log: another program reads from it. Close what reads the record "
                "(lineside-edge status --watch, replay), then run this once more, or restart the daemon.",
                file=out,
            )
            return False
        time.sleep(WIPE_PAUSE_S)
    return True
