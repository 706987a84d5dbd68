"""Prints results: a table for people, JSON lines for machines."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 160
"""Of a table that is not printed to a terminal, characters."""


def print_table(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print one table, or one JSON line a row."""
    if as_json:
        for row in rows:
            sys.stdout.write(json.dumps({"benchmark": title, **row}) + "\n")
        return
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        numeric = isinstance(rows[0][name], int | float)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    # A pipe has no width: what does not fit a line there would be folded letter by letter.
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
