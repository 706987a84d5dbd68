"""Says what is wrong with a document that people write, all of it at once, each with its line: pure.

Rules:
- Every mistake has its place; for what is not known, the nearest known name stands beside it.
- Nothing but the contract's own library is needed, so that device and control plane speak of mistakes in one way.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from edge.toml_lines import line_of

Place = tuple[str | int, ...]


class Mistake(NamedTuple):
    """One thing that is wrong: where, and what in words."""

    place: Place
    words: str

    def __str__(self) -> str:
        return f"{'.'.join(str(part) for part in self.place)}: {self.words}" if self.place else self.words


def mistakes_in(model: type[BaseModel], error: ValidationError, place: Place = ()) -> Iterator[Mistake]:
    """Give what pydantic found in a table, in words.

    Args:
        model: what the table was read as.
        error: what came of it.
        place: where the table stands.
    """
    for item in error.errors():
        where = place + item["loc"]
        if item["type"] == "extra_forbidden":
            known = sorted(_model_at(model, item["loc"][:-1]).model_fields)
            yield Mistake(where, f"unknown key{nearest(str(item['loc'][-1]), known)}")
        elif item["type"] == "missing":
            yield Mistake(where, "missing")
        else:
            said = item["msg"].removeprefix("Value error, ")
            whole = isinstance(item["input"], dict | list | BaseModel)  # the place says which; its text says no more
            meant = _meant(item["input"], item["ctx"]["expected"]) if item["type"] == "literal_error" else ""
            got = "" if whole and item["type"] == "value_error" else f", got {item['input']!r}"
            yield Mistake(where, said + got + meant)


def told(text: str, mistakes: Iterable[Mistake], where: Callable[[str, Place], int | None] = line_of) -> str:
    """Return the mistakes in a text, a line each in the text's order, under their number.

    Args:
        text: the document, of TOML unless `where` reads another notation.
        mistakes: what is wrong with it.
        where: finds the line of a place in the text.
    """
    lines = sorted((where(text, mistake.place) or 0, str(mistake)) for mistake in mistakes)
    listed = "\n".join(f"  line {line}: {words}" if line else f"  {words}" for line, words in lines)
    return f"{len(lines)} mistake(s)\n{listed}"


def nearest(name: str, known: list[str]) -> str:
    """Return the known name that was probably meant, in words; all of them where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _meant(given: object, expected: str) -> str:
    near = difflib.get_close_matches(str(given), re.findall(r"'([^']*)'", expected), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _model_at(model: type[BaseModel], place: Iterable[str | int]) -> type[BaseModel]:
    """Return the model of the table at a place within another; keys of a dict and numbers of a list change nothing."""
    for part in place:
        field = model.model_fields.get(str(part))
        model = (field and _inner(field.annotation)) or model
    return model


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := _inner(argument))), None)
