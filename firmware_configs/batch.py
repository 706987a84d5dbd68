"""Reads a list of devices (CSV) into orders for their cards, and says what is wrong with it, all at once: pure.

The columns: `name` and, as far as they differ from card to card, `site`, `profile`, `to`, `claim`, `cloud`, `bundle`,
`stations`, `ssh_key`, `wifi`, `size`, `confirm`. An empty cell takes what was said for all. Several bundles stand in
one cell, parted by semicolons.

Rules:
- The whole list is read before a card is written: a mistake in its last row costs no card.
- Every mistake is told with its line; names and files of one list differ.
- Paths are relative to the list.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edge.wire.base import NAME_PATTERN
from firmware_configs.commands.write import Order
from firmware_configs.errors import ConfigError

MAX_ROWS = 1000
"""So many cards are weeks of work; more is another file by mistake."""
MAX_CHARS = 2**20
PATHS = ("to", "stations", "ssh_key")
COLUMNS = (
    "name",
    "site",
    "profile",
    "to",
    "claim",
    "cloud",
    "bundle",
    "stations",
    "ssh_key",
    "wifi",
    "size",
    "confirm",
)


@dataclass(frozen=True)
class Row:
    """One device of the list."""

    line: int
    order: Order
    """Its claim is missing where one is still to be made."""


def read_rows(text: str, folder: Path, usual: Order, check: Callable[[Order], Iterable[str]]) -> list[Row]:
    """Return the devices of a list, in its order.

    Args:
        text: the list.
        folder: where it lies.
        usual: what holds for all cards that say nothing else.
        check: says what is wrong with one order.

    Raises:
        ConfigError: there is anything wrong with any row; the message names all of it.
    """
    rows, mistakes = [], []
    for line, cells in list(_cells(text)):
        order = _order(cells, folder, usual)
        rows.append(Row(line, order))
        found = [*_of_cells(cells, order), *check(order)]
        mistakes += [f"line {line} ({order.device or 'no name'}): {words}" for words in found]
    mistakes += _repeated(rows)
    if not rows:
        mistakes.append("no device: expected a line for each below the names of the columns")
    if mistakes:
        raise ConfigError("\n".join([f"{len(mistakes)} mistake(s)", *(f"  {words}" for words in mistakes)]))
    return rows


def _cells(text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Give each row with its line; a row is skipped if all its cells are empty."""
    if len(text) > MAX_CHARS:
        raise ConfigError(f"expected at most {MAX_CHARS} characters, got {len(text)}")
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        _check_columns(names)
        reader.fieldnames = names
        for number, row in enumerate(reader, 1):
            if number > MAX_ROWS:
                raise ConfigError(f"expected at most {MAX_ROWS} devices")
            if None in row:
                raise ConfigError(f"line {reader.line_num}: more cells than columns")
            cells = {name: (value or "").strip() for name, value in row.items()}
            if any(cells.values()):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigError(f"line {reader.line_num}: this is no CSV: {error}") from error


def _check_columns(names: list[str]) -> None:
    unknown = sorted(set(names) - set(COLUMNS))
    if unknown or "name" not in names or len(set(names)) != len(names):
        what = f"unknown: {', '.join(map(repr, unknown))}" if unknown else "each once, and `name` among them"
        raise ConfigError(f"line 1: expected columns out of {', '.join(COLUMNS)}; {what}")


def _order(cells: Mapping[str, str], folder: Path, usual: Order) -> Order:
    said = {key: value for key, value in cells.items() if value and key in COLUMNS}
    changes: dict[str, object] = {key: folder / value for key, value in said.items() if key in PATHS}
    changes |= {key: said[key] for key in ("site", "profile", "cloud", "wifi", "size", "confirm") if key in said}
    if "claim" in said:
        claim = said["claim"]
        changes["claim"] = f"@{folder / claim[1:]}" if claim.startswith("@") else claim
    if "bundle" in said:
        changes["bundles"] = [folder / part.strip() for part in said["bundle"].split(";") if part.strip()]
    return replace(usual, device=cells.get("name", ""), **changes)  # type: ignore[arg-type]


def _of_cells(cells: Mapping[str, str], order: Order) -> Iterator[str]:
    if not re.fullmatch(NAME_PATTERN, cells.get("name", "")):
        yield f"name: expected lower case, digits, - and _, at most 63, got {cells.get('name', '')!r}"
    if order.to == Path():
        yield "to: say in the list or for all what is written"


def _repeated(rows: list[Row]) -> Iterator[str]:
    names: dict[str, int] = {}
    files: dict[Path, int] = {}
    for row in rows:
        device, to = row.order.device, row.order.to
        if device in names:
            yield f"line {row.line} ({device}): the name stands in line {names[device]} already"
        if to in files and not str(to).startswith("/dev/"):
            yield f"line {row.line} ({device}): {to} is the card of line {files[to]} already"
        names.setdefault(device, row.line)
        files.setdefault(to, row.line)
