"""`lineside-edge run`: the daemon, until a signal ends it.

Rules:
- SIGTERM and SIGINT end it after the window it is on, or after what somebody waits for (`device.drain_s`); every
  decision is on disk then. A second one ends it at once, and what was not decided is on record.
- SIGHUP reads the configuration again, for what can change while it runs.
- A station that listens is shown live; whoever looks on never holds the daemon up.
"""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge.clock import SystemClock
from edge.config import Config, load_config
from edge.logs import log_events

if TYPE_CHECKING:
    from edge.commands.live import LiveView

HEARING = ("audio_file", "microphone")
"""Sources whose stations are shown unless told otherwise."""


def run(config_path: Path, *, drain: bool, live: bool | None = None) -> int:
    """Run the device, shown live or not (None: if it listens); return the exit code."""
    config = load_config(config_path)
    listens = any(section.source.get("kind") in HEARING for section in config.station.values())
    shown = listens if live is None else live
    asyncio.run(_shown(config, config_path, drain=drain) if shown else _run(config, config_path, drain=drain))
    print(f"{config.device.name}: stopped", file=sys.stderr)
    return 0


async def _shown(config: Config, path: Path, *, drain: bool) -> None:
    from edge.commands.live import showing

    with showing(config, SystemClock()) as view:
        await _run(config, path, drain=drain, view=view)


async def _run(config: Config, path: Path, *, drain: bool, view: "LiveView | None" = None) -> None:
    from edge.daemon import Daemon

    stop, hurry = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    log_events(config.log.format, sys.stderr, config.device.name)
    daemon = Daemon(config, SystemClock(), os.environ)
    gc.freeze()  # what is loaded stays to the end; see `edge.__main__.run`
    gc.enable()
    loop.add_signal_handler(signal.SIGHUP, daemon.reload, path)
    print(f"{config.device.name}: running, record in {config.device.data}", file=sys.stderr, flush=True)
    if view is not None:
        view.begin(daemon.listening)
    await daemon.run(stop, hurry, drain=drain)
