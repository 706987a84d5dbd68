"""What the subcommands share: progress on a terminal, sizes in words, JSON for machines."""

import json
import re
import sys
import time
from collections.abc import Callable

from firmware_configs.errors import ConfigError
from firmware_configs.writer import Progress

REDRAW_S = 0.2
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def say(text: str) -> None:
    """Print a line of the answer."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a person what happens; the answer stays clean for machines."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def as_json(document: object) -> str:
    """Return a document for machines."""
    return json.dumps(document, indent=1, default=str)


def size_bytes(text: str) -> int:
    """Return bytes from words such as 4G, in whole mebibytes.

    Raises:
        ConfigError: it is no size.
    """
    found = re.fullmatch(r"(\d{1,12})([KMGT]?)", text.strip().upper())
    if not found:
        raise ConfigError(f"expected a size such as 4G, got {text!r}")
    return (int(found[1]) << _UNITS[found[2]]) // 2**20 * 2**20


def progress_line(progress: Progress) -> str:
    """Return how far it is: share, amount, speed, time left."""
    share = progress.done / progress.total if progress.total else 1.0
    return (
        f"{progress.doing:12} {share:4.0%}  {progress.done / 1e6:.0f} of {progress.total / 1e6:.0f} MB  "
        f"{progress.bytes_per_s / 1e6:.0f} MB/s  {progress.left_s:.0f} s left"
    )


def progress_shown() -> Callable[[Progress], None]:
    """Return what draws progress: one line that is drawn over on a terminal, a line per work where there is none."""
    terminal, drawn_s = sys.stderr.isatty(), 0.0

    def tell(progress: Progress) -> None:
        nonlocal drawn_s
        done, now_s = progress.done >= progress.total, time.monotonic()
        if not done and (not terminal or now_s - drawn_s < REDRAW_S):
            return
        drawn_s = now_s
        sys.stderr.write(f"\r{progress_line(progress)}\x1b[K" if terminal else progress_line(progress))
        sys.stderr.write("\n" if done else "")
        sys.stderr.flush()

    return tell
