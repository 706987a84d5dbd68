"""Writes every action as one JSON line to a file: the plant of a demo, a test, and a station without wiring.

Rules:
- One action is one `write` to a file opened for appending, so lines of two processes never mix.
- A short write is an error: half a line is not an action, and the next line starts on a line of its own.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.actuators.interface import Place
from edge.actuators.settings import LogSettings
from edge.errors import ActuatorError
from edge.settings import read_settings
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock


class LogActuator:
    """Appends `{"decision", "boot_id", "verdict", "action", "at_ms"}` per action."""

    kind = "log"
    deadline_ms = 1000.0
    """A card that stalls while it erases takes some hundred milliseconds."""
    confirms_later = False

    def __init__(self, path: Path, clock: "Clock") -> None:
        self._path, self._clock = path, clock
        self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ActuatorError(f"{path}: cannot open for appending: {error.strerror}") from error

    def look(self) -> str | None:
        return None

    def act(self, decision: DecisionRow) -> str | None:
        self._append(
            {
                "decision": decision.seq,
                "boot_id": decision.boot_id,
                "station": decision.station,
                "verdict": decision.verdict,
                "action": decision.action,
                "at_ms": self._clock.now_ms(),
            }
        )
        return None

    def safe(self, why: str) -> None:
        self._append({"decision": None, "action": "safe", "why": why, "at_ms": self._clock.now_ms()})

    def stop(self, why: str) -> None:
        self._append({"decision": None, "action": "stop", "why": why, "at_ms": self._clock.now_ms()})

    def release(self) -> None:
        self._append({"decision": None, "action": "release", "at_ms": self._clock.now_ms()})

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, entry: dict[str, Any]) -> None:
        if self._fd is None:
            raise ActuatorError(f"{self._path}: the actuator is closed", retry=False)
        line = (("\n" if self._torn else "") + json.dumps(entry) + "\n").encode()
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise ActuatorError(f"{self._path}: cannot append: {error.strerror}") from error
        self._torn = written != len(line)
        if self._torn:
            raise ActuatorError(f"{self._path}: wrote {written} of {len(line)} bytes", hint="is the disk full?")


def open_actuator(settings: Mapping[str, Any], *, clock: "Clock", place: Place) -> LogActuator:  # noqa: ARG001
    """Open the log.

    Raises:
        ConfigError: a setting is unknown or wrong.
        ActuatorError: the file cannot be written.
    """
    return LogActuator(read_settings(LogSettings, settings, where="actuator log").path, clock)
