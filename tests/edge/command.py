"""Runs one command of `lineside-edge` to its end."""

import subprocess
from contextlib import chdir
from pathlib import Path

from typer.testing import CliRunner

from edge.__main__ import app
from tests import nursery

TIMEOUT_S = 120.0


def edge(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a command in a folder; return its exit code and what it wrote.

    The daemon gets a process, as in service. What only asks and answers runs here: its code is the same, and to load
    it takes far longer than the command; `tests/docs` and `tests/packaging` start such commands as programs.
    """
    if arguments[0] == "run":
        return nursery.run("edge", *arguments, cwd=cwd, timeout_s=TIMEOUT_S)
    with chdir(cwd):
        done = CliRunner().invoke(app, arguments, prog_name="lineside-edge")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([*arguments], done.exit_code, done.stdout, done.stderr)
