"""Runs one retraining command to its end, in a process of its own that outlives the control plane.

    python -m cloud.retraining.runner FOLDER -- COMMAND …

Rules:
- It begins by making `started` in the folder, which only one can make: started twice, it runs the command once.
- It holds the lock of the folder as long as it runs, so that whoever looks knows whether it is there.
- `exit.json` tells the exit code before the lock is let go; what the command prints is in `log.txt`.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloud.blobs import write_durably

STARTED, LOCK, EXIT, LOG = "started", "lock", "exit.json", "log.txt"
CANNOT_START = 127


@dataclass(frozen=True)
class Progress:
    """How far a run is, as its folder tells."""

    state: Literal["not_started", "running", "ended", "lost"]
    code: int | None = None
    """Of the command; None unless it ended."""


def progress(folder: Path) -> Progress:
    """Return how far the run of this folder is."""
    if not folder.is_dir():
        return Progress("not_started")
    with (folder / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Progress("running")
        try:
            return Progress("ended", int(json.loads((folder / EXIT).read_text("utf-8"))["code"]))
        except (OSError, ValueError, KeyError):
            return Progress("lost" if (folder / STARTED).exists() else "not_started")


def run(folder: Path, command: list[str]) -> int:
    """Run the command unless somebody has; return its exit code."""
    with (folder / LOCK).open("a") as lock:
        # Whoever looks how far we are holds the lock for a moment.
        for _ in range(100):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
        else:
            return 0
        try:
            os.close(os.open(folder / STARTED, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return 0
        code = _call(folder, command)
        write_durably(folder / EXIT, json.dumps({"code": code}).encode(), mode=0o600)
        return code


def _call(folder: Path, command: list[str]) -> int:
    with (folder / LOG).open("ab") as output:
        try:
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, check=False
            ).returncode
        except OSError as error:
            output.write(f"cannot start {command[0]}: {error.strerror}\n".encode())
            return CANNOT_START


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), sys.argv[3:]))
