"""Finds the line of a TOML file on which a setting stands, for errors that people can act on: pure.

The standard library's reader gives values without places, and no kept reader gives both.
"""

import re
from collections.abc import Sequence

_TABLE = re.compile(r"^\s*\[+\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(document: str, place: Sequence[object]) -> int | None:
    """Return the line, counted from 1, of a key; of the nearest table around it where it stands nowhere itself.

    Args:
        document: the file's text.
        place: names from the outside in, for example ("station", "main", "deadline_ms").
    """
    wanted = [str(part) for part in place]
    best, best_depth = None, 0
    table: list[str] = []
    for number, line in enumerate(document.splitlines(), 1):
        if found := _TABLE.match(line):
            table = here = _parts(found[1])
        elif found := _KEY.match(line):
            here = [*table, *_parts(found[1])]
        else:
            continue
        if len(here) <= len(wanted) and here == wanted[: len(here)] and len(here) > best_depth:
            best, best_depth = number, len(here)
    return best


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in name.split(".")]
