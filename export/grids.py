"""Lays nested figures out as grids of text, whatever a recipe or a step of the export has measured. Pure.

Rules:
- Every figure is shown under its own name; nothing is left out but long lists, which are counted.
- Figures that repeat for each class, slice or board stand in one grid, a line each; deeper ones in grids of their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_LONG_LIST = 6


@dataclass(frozen=True)
class Grid:
    """A title with lines of cells; the first cell names the line."""

    title: str
    head: list[str]
    lines: list[list[str]]


def grids(title: str, figures: Mapping[str, Any]) -> Iterator[Grid]:
    """Give nested figures as grids, the outer ones first.

    Args:
        title: of the outermost grid; those inside are called by their path.
        figures: numbers, texts, short lists, and mappings of them.
    """
    inner = {name: value for name, value in figures.items() if isinstance(value, Mapping)}
    if len(inner) > 1 and len(inner) == len(figures) and _alike(list(inner.values())):
        columns = list(dict.fromkeys(c for value in inner.values() for c, v in value.items() if _plain(v)))
        if columns:
            lines = [[_words(n), *(shown(v[c]) if c in v else "" for c in columns)] for n, v in inner.items()]
            yield Grid(title, ["", *map(_words, columns)], lines)
        deeper = {f"{name} {key}": v for name, value in inner.items() for key, v in value.items() if not _plain(v)}
    else:
        lines = [[_words(name), shown(value)] for name, value in figures.items() if _plain(value)]
        if lines:
            yield Grid(title, ["figure", "value"], lines)
        deeper = inner
    for name, value in deeper.items():
        yield from grids(f"{title}: {_words(name)}", value)


def shown(value: Any) -> str:
    """Return a figure as text; two numbers are an interval."""
    if isinstance(value, float):
        return f"{value:,.5g}"
    if isinstance(value, list):
        if len(value) == 2 and all(isinstance(item, int | float) for item in value):
            return f"{value[0]:.4g}–{value[1]:.4g}"
        flat = len(value) <= _LONG_LIST and not any(isinstance(item, list | Mapping) for item in value)
        return ", ".join(map(shown, value)) if flat else f"{len(value)} entries"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _alike(children: list[Mapping[str, Any]]) -> bool:
    """Return whether children hold about the same figures."""
    shared = set(children[0]).intersection(*children)
    return 2 * len(shared) >= len(set().union(*children))


def _plain(value: Any) -> bool:
    return not isinstance(value, Mapping)


def _words(name: str) -> str:
    return str(name).replace("_", " ")
