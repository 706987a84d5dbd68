"""The pages and the programs agree: what a page types is there, and what a program offers is on a page."""

import re
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.docs.test_tidy import tracked

ROOT = Path(__file__).parents[2]
PAGES = [page for page in tracked("*.md") if page.name != "CHANGELOG.md"]
"""A changelog also speaks of what is gone."""
PROGRAM = re.compile(r"lineside-(?:edge|cloud|export|bench|flash)\b[^\n`|;&<>()]*")


def programs() -> dict[str, Any]:
    """Return the commands that the project installs."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    modules = {name: import_module(target.split(":")[0]) for name, target in scripts.items()}
    return {name: typer.main.get_command(module.app) for name, module in modules.items()}


def leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Give every command that does something, by what a person types."""
    inside = inner_commands(command)
    for word, inner in inside.items():
        yield from leaves(f"{name} {word}", inner)
    if not inside or command.invoke_without_command:
        yield name, command


def inner_commands(command: Any) -> dict[str, Any]:
    """Return the subcommands of a command, by name. (Typer brings a click of its own, so types do not tell.)"""
    return dict(getattr(command, "commands", {}).items())


def unknown_words(line: str, known: dict[str, Any]) -> list[str]:
    """Return subcommands and options in a typed line that the programs do not have."""
    words = line.split()
    command = known.get(words[0])
    if command is None:
        return [words[0]]
    found: list[str] = []
    for word in words[1:]:
        if inner_commands(command) and not word.startswith("-"):
            inner = inner_commands(command).get(word)
            if inner is None and re.fullmatch(r"[a-z][a-z-]+", word):
                return [*found, word]
            command = inner or command
        elif word.startswith("--"):
            option = word.split("=")[0].rstrip(".,:")
            options = {text for parameter in command.params for text in parameter.opts} | {"--help"}
            found += [] if option in options else [option]
    return found


KNOWN = programs()
LEAVES = dict(leaf for name, command in KNOWN.items() for leaf in leaves(name, command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_types_only_commands_and_options_that_are_there(page: Path) -> None:
    lines = [line.strip() for line in PROGRAM.findall(page.read_text())]
    wrong = {line: unknown for line in lines if (unknown := unknown_words(line, KNOWN))}
    assert wrong == {}


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_command_is_named_on_a_page(name: str) -> None:
    text = " ".join(page.read_text() for page in PAGES)
    short = name.partition(" ")[2]
    assert name in text or f"`{short}`" in text or f"`{short} " in text, f"no page speaks of `{name}`"


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_command_and_its_options_explain_themselves(name: str) -> None:
    command = LEAVES[name]
    assert command.help, f"{name} has no help"
    silent = [p.opts[0] for p in command.params if p.opts[0].startswith("-") and not p.help]
    assert silent == [], f"options of {name} without a word"


def test_check_of_typed_lines_finds_what_is_not_there() -> None:
    assert unknown_words("lineside-edge run --config box.toml", KNOWN) == []
    assert unknown_words("lineside-edge fly --config box.toml", KNOWN) == ["fly"]
    assert unknown_words("lineside-cloud rollouts start m 1 --fast", KNOWN) == ["--fast"]
    assert unknown_words("lineside-moon", KNOWN) == ["lineside-moon"]
