"""Finds the line of a TOML file on which a setting stands, for errors that people can act on: pure.

The standard library's reader gives values without places, and no kept reader gives both.
"""

import re
from collections.abc import Sequence

_TABLE = re.compile(r"^\s*(\[{1,2})\s*([^\]]+?)\s*\]+")
_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


def line_of(document: str, place: Sequence[object]) -> int | None:
    """Return the line, counted from 1, of a key; of the nearest table around it where it stands nowhere itself.

    Args:
        document: the file's text.
        place: names from the outside in, for example ("station", "main", "deadline_ms"); a table of an array by its
            number from 0, for example ("stages", 1, "gates", 0, "margin").
    """
    wanted = [str(part) for part in place]
    best, best_depth = None, 0
    table: list[str] = []
    numbers: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(document.splitlines(), 1):
        if found := _TABLE.match(line):
            table = here = _numbered(_parts(found[2]), numbers, begins=len(found[1]) == 2)
        elif found := _KEY.match(line):
            here = [*table, *_parts(found[1])]
        else:
            continue
        if len(here) <= len(wanted) and here == wanted[: len(here)] and len(here) > best_depth:
            best, best_depth = number, len(here)
    return best


def _numbered(parts: list[str], numbers: dict[tuple[str, ...], int], *, begins: bool) -> list[str]:
    """Return a table's name with the number of each array on the way; `begins`: it is the next of its array itself."""
    here: list[str] = []
    for depth, part in enumerate(parts, 1):
        here.append(part)
        if begins and depth == len(parts):
            numbers[tuple(here)] = numbers.get(tuple(here), -1) + 1
        if tuple(here) in numbers:
            here.append(str(numbers[tuple(here)]))
    return here


def _parts(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in name.split(".")]
