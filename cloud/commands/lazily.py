"""A group of subcommands of which only the one that is typed is imported: half a second less for every command."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class Places(Mapping[str, Any]):
    """Subcommands by name, each imported when it is asked for; `in` and iterating import nothing."""

    def __init__(self, places: Mapping[str, str]) -> None:
        """Take where they are, as `module:attribute`: a `Typer`, or a function that is a command."""
        self._places = places
        self._found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            module, _, attribute = self._places[name].partition(":")
            self._found[name] = _command(name, getattr(import_module(module), attribute))
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def group_of(places: Mapping[str, str]) -> type[TyperGroup]:
    """Return the class of a group with these subcommands, in this order."""

    class Lazily(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = Places(places)  # type: ignore[assignment]

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (click passes it)
            return list(self.commands)

    return Lazily


def _command(name: str, found: Any) -> Any:
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
    else:
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        command = typer.main.get_command(alone)
    command.name = name
    return command
