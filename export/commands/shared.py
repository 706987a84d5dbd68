"""What the commands of `lineside-export` share: how they fail, and how they print.

Rules:
- Exit codes: 0 done, 1 done and the answer is no (an audit failed), 2 wrong arguments, 3 not usable.
- What a person reads goes to standard output, progress and errors to standard error.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

NO = 1
UNUSABLE = 3


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn errors that are meant for people into a message and exit code 3."""
    from edge.errors import LinesideError

    try:
        yield
    except LinesideError as error:
        fail(error.for_people())


def fail(message: str) -> NoReturn:
    """Print what went wrong, and end with exit code 3."""
    typer.echo(message, err=True)
    raise typer.Exit(UNUSABLE)


def print_json(value: Any) -> None:
    """Print a value as JSON for machines."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def pairs(values: Mapping[str, Any]) -> str:
    """Return names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")
