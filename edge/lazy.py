"""Finds an implementation by its name in a table, importing its module only when it is chosen.

Rules:
- An unknown name is an error that lists the known ones; a missing library is an error that names the extra.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from edge.errors import ConfigError


def find(table: Mapping[str, str], name: str, *, what: str, extras: Mapping[str, str] | None = None) -> Any:
    """Return the object that `table[name]` points to, written as `module:attribute`.

    Args:
        table: from name to where the implementation is.
        name: what the config or the bundle asks for.
        what: the kind of thing, for the error's words.
        extras: from name to the extra of the distribution that brings its library.

    Raises:
        ConfigError: the name is unknown, or a library that the implementation needs is not installed.
    """
    if name not in table:
        known = ", ".join(sorted(table))
        raise ConfigError(f"{what}: expected one of {known}, got {name!r}", hint=f"use one of: {known}")
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise missing_library(what, name, error, (extras or {}).get(name)) from error


def missing_library(what: str, name: str, error: ModuleNotFoundError, extra: str | None) -> ConfigError:
    """Return the error for a library that is not installed, with the command that installs it."""
    package = f"lineside[{extra}]" if extra else "lineside"
    return ConfigError(f"{what} {name!r} needs {error.name}, which is not installed", hint=f"pip install '{package}'")
