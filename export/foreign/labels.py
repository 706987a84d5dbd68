"""Reads the names of a foreign model's labels: a file, or a list in the command. Pure but for reading the file.

Rules:
- One name a line, or JSON (a list, or an object from number to name); numbers in front of every line are dropped.
- Names that repeat, as ImageNet's do, get a number behind them: labels of a bundle must differ.
"""

import json
import re
from collections import Counter
from pathlib import Path

from edge.errors import ConfigError

_NUMBERED = re.compile(r"^\s*(\d+)\s*[:,;\t ]\s*(.+)$")
_MAX_BYTES = 2**20
_PLAIN = re.compile(r"[^a-z0-9]+")


def read_labels(text: str) -> list[str]:
    """Return the names in the order of the outputs.

    Args:
        text: a path, or names with commas between them.

    Raises:
        ConfigError: there are none.
    """
    path = Path(text)
    try:
        from_file = path.is_file()
    except OSError:  # a long list is no path
        from_file = False
    if not from_file and ("," not in text or "/" in text):
        raise ConfigError(f"--labels {text}: there is no such file", hint="give a file with one label a line, or a,b,c")
    names = _from_file(path) if from_file else [name.strip() for name in text.split(",")]
    if len([name for name in names if name]) < 2:
        raise ConfigError(f"--labels {text}: expected at least two names, got {len(names)}")
    return _distinct([name or f"label {index}" for index, name in enumerate(names)])


def plain(name: str) -> str:
    """Return a name as it is compared with a folder's: `_Silence_` and `silence` are the same."""
    return _PLAIN.sub(" ", name.lower()).strip()


def _from_file(path: Path) -> list[str]:
    if path.stat().st_size > _MAX_BYTES:
        raise ConfigError(f"--labels {path}: expected a list of names, got {path.stat().st_size} bytes")
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--labels {path}: expected text in UTF-8") from error
    if text.lstrip().startswith(("[", "{")):
        return _from_json(text, path)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return _without_numbers(lines)


def _from_json(text: str, path: Path) -> list[str]:
    try:
        found = json.loads(text)
        if isinstance(found, dict):
            found = [found[key] for key in sorted(found, key=int)]
        return [str(item[-1] if isinstance(item, list) else item) for item in found]
    except (ValueError, IndexError, TypeError) as error:
        raise ConfigError(
            f"--labels {path}: expected a JSON list of names, or an object from number to name: {error}"
        ) from error


def _without_numbers(lines: list[str]) -> list[str]:
    """Drop numbers that count the lines, from 0 or 1; other numbers are names."""
    hits = [_NUMBERED.match(line) for line in lines]
    if not all(hits):
        return lines
    numbers = [int(hit.group(1)) for hit in hits if hit]
    if numbers not in (list(range(len(lines))), list(range(1, len(lines) + 1))):
        return lines
    return [hit.group(2).strip() for hit in hits if hit]


def _distinct(names: list[str]) -> list[str]:
    again: Counter[str] = Counter()
    given: list[str] = []
    taken = set(names)
    for name in names:
        again[name] += 1
        unique = name
        while again[name] > 1 and unique in taken:
            unique = f"{name} ({again[name]})"
            if unique in taken:
                again[name] += 1
        taken.add(unique)
        given.append(unique)
    return given
