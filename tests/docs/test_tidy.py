"""What a machine can check about the house: pages, function length, leftovers, words that do not belong here."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("edge", "cloud", "export", "models", "firmware_configs", "benchmarks", "tests")
MAX_FUNCTION_LINES, MAX_FILE_LINES, MAX_FILE_BYTES = 60, 600, 3 * 2**20
LEFTOVER = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
FOREIGN = re.compile(r"(?<![*\w])/(work|root)/|pypi\.org/simple|files\.pythonhosted|registry\.npmjs")


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@cache
def looked_at(path: Path) -> tuple[list[str], bool]:
    """Return the functions of a file that are too long, and whether it says what it is for (or is empty)."""
    tree = ast.parse(path.read_text())
    return long_functions(tree), not tree.body or bool(ast.get_docstring(tree))


def long_functions(source: ast.AST) -> list[str]:
    """Return the functions that are longer than the house allows."""
    found, inside = [], [source]
    while inside:  # only statements hold functions; to walk through every expression takes ten times as long
        for node in ast.iter_child_nodes(inside.pop()):
            if not isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
                continue
            inside.append(node)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                found += [f"{node.name} ({length} lines)"] if length > MAX_FUNCTION_LINES else []
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_has_a_page_with_dated_decisions(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    assert "## Decisions" in text
    assert re.search(r"20\d\d-\d\d-\d\d", text)


def test_functions_are_short_enough_to_read() -> None:
    long = {str(path.relative_to(ROOT)): looked_at(path)[0] for path in tracked("*.py")}
    assert {name: found for name, found in long.items() if found} == {}


def test_check_of_function_length_finds_a_long_one() -> None:
    tree = ast.parse("class A:\n  if 1:\n   def f():\n" + "    x = 1\n" * 70)
    assert long_functions(tree) == ["f (71 lines)"]


def test_files_are_short_enough_to_hold_in_mind() -> None:
    code = [path for path in tracked("*.py") if ROOT / "tests" not in path.parents]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in code}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_nothing_is_left_for_later_in_the_code() -> None:
    me = Path(__file__)
    left = [str(p.relative_to(ROOT)) for p in tracked("*.py") if p != me and LEFTOVER.search(p.read_text())]
    assert left == []


def test_nothing_speaks_of_one_machine() -> None:
    me = Path(__file__)
    texts = [
        p for p in tracked() if p != me and p.suffix in (".py", ".md", ".toml", ".txt", ".lock", ".yml", ".html", "")
    ]
    assert [str(p.relative_to(ROOT)) for p in texts if FOREIGN.search(p.read_text(errors="replace"))] == []


def test_modules_say_what_they_are_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in tracked("*.py") if not looked_at(path)[1]]
    assert silent == []


def test_no_file_is_too_large_for_a_clone() -> None:
    assert [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > MAX_FILE_BYTES] == []
