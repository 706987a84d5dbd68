"""`lineside-edge mode` and `acknowledge`: what a person switches at the device, also while the daemon runs.

Rules:
- The switch is kept in the device's record; the daemon finds it there, tells it (an event) and goes by it from the next
  window on. The command waits until it has, and says if it has not.
- Exit codes: 0 in force, 1 kept until the daemon runs.
"""

import getpass
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, get_args

from edge.clock import SystemClock
from edge.config import Config, load_config
from edge.errors import ConfigError
from edge.linewatch import read_line
from edge.overrides import read_switch, set_switch, taken_switch
from edge.report import REPORTED_META
from edge.station import store_path
from edge.store import Store
from edge.wire.messages import Reported
from edge.wire.terms import MODES, Mode

WAIT_S = 4.0
"""Longest wait for the daemon, which looks every 0.2 s."""
POLL_S = 0.05
NOT_YET = 1
"""Exit code when no daemon has taken the switch up."""


def run_mode(config_path: Path, station: str, wanted: str | None, *, give_back: bool, out: TextIO | None = None) -> int:
    """Switch a station's mode, or say it; return the exit code."""
    config = _config(config_path, station)
    if wanted is not None and (give_back or wanted not in get_args(Mode)):
        problem = "either MODE or --give-back" if give_back else f"expected one of {', '.join(MODES)}, got {wanted!r}"
        raise ConfigError(f"mode: {problem}")
    with _store(config) as store:
        before = read_switch(store, station)
        if wanted is None and not give_back:
            held = f", held at the device by {before.by}" if before.mode else ""
            print(f"{station}: {_mode_now(store, station) or config.station[station].mode}{held}", file=out)
            return 0
        mode = next((known for known in MODES if known == wanted), None)
        switch = before.model_copy(update={"mode": mode, "by": getpass.getuser(), "at_ms": SystemClock().now_ms()})
        set_switch(store, station, switch)
        if not _daemon_runs(store, config):
            print(f"{station}: kept; it holds when the daemon runs", file=out)
            return NOT_YET
        taken = _wait(lambda: taken_switch(store, station) == switch.model_dump_json())
        what = f"{wanted} from the next part on" if wanted else "given back from the next part on"
        print(f"{station}: {what if taken else 'kept; the daemon has not taken it up yet'}", file=out)
    return 0 if taken else NOT_YET


def run_acknowledge(config_path: Path, station: str, *, out: TextIO | None = None) -> int:
    """Acknowledge a stopped line; return the exit code."""
    config = _config(config_path, station)
    with _store(config) as store:
        line = read_line(store, station)
        if line.stop is None:
            print(f"{station}: the line is not stopped", file=out)
            return 0
        switch = read_switch(store, station)
        by = {"acknowledged": line.stop, "by": getpass.getuser(), "at_ms": SystemClock().now_ms()}
        set_switch(store, station, switch.model_copy(update=by))
        taken = _wait(lambda: read_line(store, station).stop != line.stop)
        said = "the line runs again" if taken else "kept; the line runs again when the daemon and the plant take it"
        print(f"{station}: {said} (it was stopped: {line.why})", file=out)
    return 0 if taken else NOT_YET


def _config(path: Path, station: str) -> Config:
    config = load_config(path)
    if station not in config.station:
        known = ", ".join(sorted(config.station))
        raise ConfigError(f"no station {station!r} in {path}", hint=f"it has: {known}")
    return config


def _store(config: Config) -> Store:
    path = store_path(config)
    if not path.exists():
        raise ConfigError(f"{config.device.name}: never started here, so there is no record at {path}")
    return Store.open(path, clock=SystemClock(), durability=config.store.durability)


def _reported(store: Store) -> Reported | None:
    saved = store.get_meta(REPORTED_META)
    return Reported.model_validate_json(saved) if saved else None


def _mode_now(store: Store, station: str) -> Mode | None:
    reported = _reported(store)
    found = reported.stations.get(station) if reported else None
    return found.mode if found else None


def _daemon_runs(store: Store, config: Config) -> bool:
    reported = _reported(store)
    return reported is not None and SystemClock().now_ms() - reported.sent_at_ms < 3000 * config.link.report_interval_s


def _wait(until: Callable[[], bool]) -> bool:
    deadline_s = time.monotonic() + WAIT_S
    while not until():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True
