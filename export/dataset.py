"""Reads a folder of class folders: which files there are, what they show, and which belong together.

Rules:
- A folder per class; or `train`, `val`, `test` with a folder per class each; or `metadata.csv` that names the files.
- `metadata.csv` has the columns file, label, group (or part, speaker, board, position: the column names the unit)
  and perhaps split; every other column is a slice that figures are given for.
- `<stem>.mask.png` beside a picture is its mask: brighter than 127 is defective.
- Groups come from the metadata, else from `--group`, a pattern over file names, else each file is its own group.
- The order is that of the names, so that the same folder gives the same bundle.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from edge.errors import ConfigError
from edge.values import Window
from edge.wire.manifest import GOOD_LABEL
from edge.wire.terms import Task

Media = Literal["image", "audio"]
SPLITS = {"train": "train", "training": "train", "val": "test", "valid": "test", "validation": "test", "test": "test"}
GROUP_COLUMNS = ("group", "part", "speaker", "board", "position", "site")
METADATA = "metadata.csv"
_MASK_END = ".mask.png"
_SINGLE = {"image": "picture", "audio": "recording"}


@dataclass(frozen=True)
class Item:
    """One file with what is known about it."""

    path: Path
    file: str
    """Its path inside the data folder, with slashes."""
    label: str
    group: str
    split: str = ""
    """`train`, `test`, or empty where the data does not say."""
    mask: Path | None = None
    slices: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A folder's items, in the order of their names."""

    root: Path
    media: Media
    items: list[Item]
    unit: str
    """What is independent: picture, recording, or the name of the group's column."""
    grouped: bool
    """Whether somebody said which files belong together."""

    @property
    def labels(self) -> list[str]:
        """The classes: `good` first, the others by name."""
        names = sorted({item.label for item in self.items})
        return sorted(names, key=lambda name: name != GOOD_LABEL)

    @property
    def counts(self) -> dict[str, int]:
        """Files per class."""
        found = Counter(item.label for item in self.items)
        return {label: found[label] for label in self.labels}

    def only(self, kept: Iterable[Item]) -> "Dataset":
        """Return the data set with these items."""
        return replace(self, items=list(kept))

    def digest(self) -> str:
        """Return one SHA-256 over names, labels, groups and bytes."""
        whole = hashlib.sha256()
        for item in self.items:
            words = "\0".join([item.file, item.label, item.group, item.split])
            whole.update(words.encode() + hashlib.sha256(item.path.read_bytes()).digest())
        return whole.hexdigest()

    def newest(self) -> str:
        """Return when the youngest file was last changed, ISO 8601 in UTC, full seconds."""
        seconds = max(int(item.path.stat().st_mtime) for item in self.items)
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def load(root: Path, task: Task, *, good: str | None = None, group: str | None = None) -> Dataset:
    """Return what a folder holds.

    Args:
        root: a folder of class folders, or one with `metadata.csv`.
        task: `inspect` reads pictures, `keyword` sounds (pictures where there is no sound).
        good: the class that is good parts; it is called `good` from here on.
        group: a regular expression over file names; what its groups match (or all of it) names the unit.

    Raises:
        ConfigError: there is nothing usable, or `good` is missing; the hint says what to type.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: expected a folder of class folders, there is none")
    media = _media(root, task)
    table = _metadata(root)
    items = list(_from_table(root, table) if table and "label" in table[0] else _from_folders(root, media))
    items = [_with_row(item, rows) for rows in [{row["file"]: row for row in table}] for item in items]
    unit = _unit_column(table) or ("group" if group else _SINGLE[media])
    if group:
        items = _grouped_by_name(items, group)
    if good:
        items = _renamed(items, good)
    found = Dataset(root, media, items, unit, grouped=bool(_unit_column(table) or group))
    _check(found, task)
    return found


def read(item: Item) -> Window:
    """Return an item as a device reads it; `problem` says why it cannot be judged."""
    return read_path(item.path)


def read_path(path: Path) -> Window:
    """Return a file as a device reads it; `problem` says why it cannot be judged."""
    from edge.sources.files import read_window

    return read_window(path, source="file")


def _media(root: Path, task: Task) -> Media:
    if task == "inspect":
        return "image"
    return "audio" if next(files(root, "audio"), None) else "image"


def files(root: Path, media: Media) -> Iterator[Path]:
    """Give a folder's pictures or sounds by name; masks and hidden files are not among them."""
    from edge.sources.files import media_kind

    for path in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and path.is_file() and not path.name.endswith(_MASK_END) and media_kind(path) == media:
            yield path


def _from_folders(root: Path, media: Media) -> Iterator[Item]:
    for path in files(root, media):
        folders = path.relative_to(root).parts[:-1]
        split = SPLITS.get(folders[0].lower(), "") if len(folders) > 1 else ""
        inside = folders[1:] if split else folders
        if inside:
            yield _item(root, path, inside[0], split)


def _from_table(root: Path, table: list[dict[str, str]]) -> Iterator[Item]:
    missing = [row["file"] for row in table if not (root / row["file"]).is_file()]
    if missing:
        raise ConfigError(f"{root / METADATA}: {len(missing)} files are not there, the first is {missing[0]}")
    for row in sorted(table, key=lambda row: row["file"]):
        yield _item(root, root / row["file"], row["label"], "")


def _item(root: Path, path: Path, label: str, split: str) -> Item:
    mask = path.with_name(path.stem + _MASK_END)
    file = path.relative_to(root).as_posix()
    return Item(path, file, label, file, split, mask if mask.is_file() else None)


def _metadata(root: Path) -> list[dict[str, str]]:
    path = root / METADATA
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [{key: (value or "").strip() for key, value in row.items() if key} for row in csv.DictReader(file)]
    if rows and "file" not in rows[0]:
        raise ConfigError(f"{path}: expected a column `file`, got {', '.join(rows[0])}")
    return rows


def _unit_column(table: list[dict[str, str]]) -> str | None:
    return next((name for name in GROUP_COLUMNS if table and name in table[0]), None)


def _with_row(item: Item, rows: dict[str, dict[str, str]]) -> Item:
    row = rows.get(item.file)
    if row is None:
        return item
    unit = _unit_column([row])
    slices = {key: value for key, value in row.items() if key not in ("file", "label", "split", "group") and value}
    split = SPLITS.get(row.get("split", "").lower(), item.split)
    return replace(item, group=(unit and row[unit]) or item.group, split=split, slices=slices)


def _grouped_by_name(items: list[Item], pattern: str) -> list[Item]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--group {pattern!r}: not a regular expression: {error}") from error
    found = [compiled.search(item.path.name) or compiled.search(item.file) for item in items]
    if not any(found):
        raise ConfigError(
            f"--group {pattern!r} matches no file name, for example {items[0].path.name if items else ''}"
        )
    return [item if hit is None else replace(item, group=_name(hit)) for item, hit in zip(items, found, strict=True)]


def _name(hit: "re.Match[str]") -> str:
    return "_".join(part or "" for part in hit.groups()) if hit.groups() else hit.group(0)


def _renamed(items: list[Item], good: str) -> list[Item]:
    labels = {item.label for item in items}
    if good not in labels:
        raise ConfigError(f"--good {good}: there is no such class", hint=f"there are: {', '.join(sorted(labels))}")
    return [replace(item, label=GOOD_LABEL) if item.label == good else item for item in items]


def _check(found: Dataset, task: Task) -> None:
    labels = found.labels
    if len(labels) < 2:
        what = "pictures" if found.media == "image" else "sounds"
        have = ", ".join(labels) or "none"
        raise ConfigError(
            f"{found.root}: expected at least two folders with {what}, one per class, got {have}",
            hint="lay it out as DATA/good/*.jpg and DATA/scratch/*.jpg, or write a metadata.csv with file and label",
        )
    if task == "inspect" and GOOD_LABEL not in labels:
        likely = next((name for name in labels if name.lower() in _LIKELY_GOOD), labels[0])
        raise ConfigError(
            f"{found.root}: no class is called {GOOD_LABEL!r}, there are {', '.join(labels)}",
            hint=f"say which one is good parts, for example --good {likely}",
        )
    few = {label: count for label, count in found.counts.items() if count < _FEWEST}
    if few:
        raise ConfigError(
            f"{found.root}: expected at least {_FEWEST} files per class, got {_words(few)}",
            hint="add examples, or move the class away",
        )


def _words(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


_FEWEST = 4
_LIKELY_GOOD = {
    "ok",
    "free",
    "clean",
    "normal",
    "pass",
    "ok_front",
    "no_defect",
    "nodefect",
    "negative",
    "none",
    "perfect",
}
