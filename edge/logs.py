"""Writes the device's events to standard error as they are recorded: for people, or a JSON object a line.

Rules:
- What is logged is what is recorded: one event, one line, in the same words; nothing is said only here.
- Nothing of a picture, a sound or a secret is in an event, so nothing is in a log.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Literal, TextIO

LogFormat = Literal["people", "json", "none"]
EVENTS = logging.getLogger("lineside.events")
"""Where the store hands on each event that it has recorded; `record.event` is the row as a dict."""
EVENTS.addHandler(logging.NullHandler())
EVENTS.propagate = False
EVENTS.setLevel(logging.INFO)

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}


def log_events(style: LogFormat, out: TextIO, device: str) -> None:
    """Begin to write events to `out`; once per process."""
    if style == "none":
        return
    handler = logging.StreamHandler(out)
    handler.setFormatter(_JsonLines(device) if style == "json" else _ForPeople())
    EVENTS.addHandler(handler)


class _JsonLines(logging.Formatter):
    """`{"time", "level", "device", "event", "station", "model", "detail", "data", …}`."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def format(self, record: logging.LogRecord) -> str:
        row = dict(record.__dict__["event"])
        at_ms, name = row.pop("at_ms"), row.pop("name")
        head = {"time": _iso(at_ms), "level": row.pop("severity"), "device": self._device, "event": name}
        return json.dumps({**head, **{key: value for key, value in row.items() if value not in (None, "", {})}})


class _ForPeople(logging.Formatter):
    """`12:00:00 ! main: source_lost: no such device`."""

    def format(self, record: logging.LogRecord) -> str:
        row = record.__dict__["event"]
        mark = {"info": " ", "warning": "·", "alarm": "!"}[row["severity"]]
        where = f"{row['station']}: " if row["station"] else ""
        words = f": {row['detail']}" if row["detail"] else ""
        return f"{_iso(row['at_ms'])[11:19]} {mark} {where}{row['name'].replace('_', ' ')}{words}"


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
