"""Shows on a device's console when it has decided for the first time since it was switched on.

Rules:
- Reads the record from the outside and changes nothing; ends with the first decision after those that it found.
- A decision's own monotonic clock is the time since the kernel began; the wall clock may be wrong, and may jump.
- The standard library alone, and little of it: on a slow board every import is time that deciding lacks.
"""

import json
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

LOOK_S = 0.5
LISTEN = "0A"
"""The kernel's number of that state of a socket."""
LOOPBACK = ("7F", "00000000000000000000000001000000")
"""How an address of this machine alone ends: 127.x.x.x in the kernel's order of bytes, ::1 of IPv6."""


def main(home: str) -> int:
    """Wait for the next decision in the record, print it as one line, and end."""
    record = f"file:{home}/data/lineside.sqlite?mode=ro"
    before = (ask(record, "SELECT coalesce(max(seq), 0) FROM rows", ()) or (0,))[0]
    while True:
        found = first_decision(record, before)
        if found is not None:
            sys.stdout.write(line(found))
            sys.stdout.write(state(Path("/proc")))
            sys.stdout.flush()
            return 0
        time.sleep(LOOK_S)


def first_decision(record: str, after: int) -> dict[str, Any] | None:
    """Return the first decision beyond row `after`, None if there is none yet, or no record."""
    row = ask(record, "SELECT body FROM rows WHERE seq > ? AND kind = 'decision' ORDER BY seq LIMIT 1", (after,))
    return dict(json.loads(row[0])) if row else None


def ask(record: str, question: str, values: tuple[int, ...]) -> Any:
    """Return the first row of the answer, None if there is none or the record cannot be read now."""
    try:
        connection = sqlite3.connect(record, uri=True, timeout=5)
        try:
            return connection.execute(question, values).fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None


def line(decision: dict[str, Any]) -> str:
    """Return what the console shows."""
    uptime_s = decision["monotonic_ms"] / 1000
    return (
        f"lineside: first decision {uptime_s:.1f} s after the start: {decision['verdict']} at {decision['station']}\n"
    )


def state(proc: Path) -> str:
    """Return what of the machine's memory is in use, and on which ports others reach it."""
    memory = dict(text.split(":", 1) for text in (proc / "meminfo").read_text().splitlines())
    used_kb = int(memory["MemTotal"].split()[0]) - int(memory["MemAvailable"].split()[0])
    ports = ", ".join(map(str, listening(proc))) or "none"
    return f"lineside: {used_kb / 1024:.0f} MB of memory in use; listening to others on: {ports}\n"


def listening(proc: Path) -> list[int]:
    """Return the TCP ports on which connections from other machines are taken."""
    found = set()
    for name in ("tcp", "tcp6"):
        table = proc / "net" / name
        for row in table.read_text().splitlines()[1:] if table.exists() else []:
            address, port = row.split()[1].split(":")
            if row.split()[3] == LISTEN and not address.endswith(LOOPBACK):
                found.add(int(port, 16))
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
