"""Finds the command blocks of a Markdown page, and what is said about running them.

A block of `console` stands behind `<!-- run: NAME -->` or `<!-- skip: REASON -->`. Blocks of one name are one session;
`lineside-cloud serve` and `lineside-edge run` without `--drain` keep running behind the lines after them, which begin
once they serve: the control plane, a device of its own, a prediction server.
"""

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"(?:<!-- (run|skip): (.*?) -->\n)?```console\n(.*?)```", re.DOTALL)
_KEEPS_RUNNING = re.compile(r"^lineside-cloud serve\b|^lineside-edge run\b(?!.*--drain)")
_UNTIL_SERVING = "until lineside-cloud devices >/dev/null 2>&1; do sleep 0.1; done"
_UNTIL_READY = "until curl -fs http://127.0.0.1:8470/healthz; do sleep 0.1; done"
_UNTIL_FRESH = "until lineside-cloud devices --json | grep -q fresh; do sleep 0.1; done"


@dataclass(frozen=True)
class Block:
    """One block of commands."""

    say: str
    """`run`, `skip`, or empty when nothing is said."""
    what: str
    """Name of the session, or reason why it is not run."""
    commands: str


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    return [Block(say or "", what or "", text) for say, what, text in _BLOCK.findall(page.read_text())]


def sessions(page: Path) -> dict[str, str]:
    """Return the script of each session of a page."""
    scripts: dict[str, str] = {}
    for block in blocks(page):
        if block.say == "run":
            scripts[block.what] = scripts.get(block.what, "") + _as_script(block.commands)
    return scripts


def _as_script(commands: str) -> str:
    lines: list[str] = []
    for line in commands.splitlines():
        if not _KEEPS_RUNNING.match(line):
            lines.append(line)
            continue
        lines += [f"{line} &", _until(line)]
    return "\n".join(lines) + "\n"


def _until(line: str) -> str:
    if line.startswith("lineside-cloud"):
        return _UNTIL_SERVING
    return _UNTIL_READY if "recogniser.toml" in line else _UNTIL_FRESH
