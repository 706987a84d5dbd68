"""Finds the folders of real pictures and sounds that recipes train and measure on.

Rules:
- The caller's folder counts first, then `LINESIDE_DATA`; nothing is guessed and nothing is downloaded.
"""

import argparse
import os
from pathlib import Path

from edge.errors import ConfigError

VARIABLE = "LINESIDE_DATA"


def folder_of(name: str, data: Path | None) -> Path:
    """Return the folder of one data set, for example `ball-screw`.

    Args:
        name: of the data set's own folder.
        data: the folder that holds it, None for `$LINESIDE_DATA`.

    Raises:
        ConfigError: neither is given, or there is no such folder.
    """
    given = data or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    hint = f"each model's README.md says where {name} comes from"
    if given is None:
        raise ConfigError(f"no real data: give --data or set {VARIABLE}", hint=hint)
    if not (given / name).is_dir():
        raise ConfigError(f"{given / name}: expected a folder with the data set, found none", hint=hint)
    return given / name


def add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add `--data` to a command."""
    parser.add_argument("--data", type=Path, default=None, help=f"folder that holds {name}/ (default: ${VARIABLE})")
