"""`lineside-edge run`: the daemon, until a signal ends it.

Rules:
- SIGTERM and SIGINT end it after the window it is on; every decision is on disk then.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from edge.clock import SystemClock
from edge.config import load_config
from edge.logs import log_events


def run(config_path: Path, *, drain: bool) -> int:
    """Run the device; return the exit code."""
    config = load_config(config_path)
    asyncio.run(_run(config_path, drain=drain))
    print(f"{config.device.name}: stopped", file=sys.stderr)
    return 0


async def _run(config_path: Path, *, drain: bool) -> None:
    from edge.daemon import Daemon

    config = load_config(config_path)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log_events(config.log.format, sys.stderr, config.device.name)
    daemon = Daemon(config, SystemClock(), os.environ)
    print(f"{config.device.name}: running, record in {config.device.data}", file=sys.stderr, flush=True)
    await daemon.run(stop, drain=drain)
