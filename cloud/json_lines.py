"""Finds the line of a JSON text on which a value stands, for errors that people can act on: pure.

The standard library's reader gives values without places.
"""

import json
import re
from collections.abc import Iterator, Sequence

_SPACE = re.compile(r"[\s,:]*")
_DECODER = json.JSONDecoder()

Place = tuple[str, ...]


def line_of(text: str, place: Sequence[object]) -> int | None:
    """Return the line, counted from 1, of a value in a valid text; of the nearest around it where it stands nowhere.

    Args:
        text: the document.
        place: names and numbers from the outside in, for example ("stages", 1, "kind").
    """
    wanted = tuple(str(part) for part in place)
    found = {path: at for path, at in _values(text, _past_space(text, 0), ()) if path == wanted[: len(path)]}
    return text.count("\n", 0, found[max(found, key=len)]) + 1 if found else None


def _values(text: str, at: int, path: Place) -> Iterator[tuple[Place, int]]:
    """Give path and offset of a value and of all within it, outer ones first."""
    yield path, at
    if text[at] not in "{[":
        return
    number, named = 0, text[at] == "{"
    at = _past_space(text, at + 1)
    while text[at] not in "}]":
        begins, name = at, str(number)
        if named:
            name, at = _DECODER.raw_decode(text, at)
            at = _past_space(text, at)
        inner = _values(text, at, (*path, name))
        yield next(inner)[0], begins
        yield from inner
        at = _past_space(text, _DECODER.raw_decode(text, at)[1])
        number += 1


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
