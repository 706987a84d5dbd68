"""What all subcommands share: the server's address, JSON or text, errors to exit codes."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cloud.client import CloudClient
from cloud.errors import CloudError, ConfigError

DEFAULT_URL = "http://127.0.0.1:8440"

Server = Annotated[
    str, typer.Option("--server", envvar="LINESIDE_CLOUD", help="Address of the control plane.", metavar="URL")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="LINESIDE_TOKEN_FILE",
        help="File with the operator's token, where the control plane asks for one.",
        metavar="FILE",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@contextmanager
def client(server: str, token_file: Path | None) -> Iterator[CloudClient]:
    """Give a client, and turn errors into a message and an exit code."""
    with exit_codes():
        token = None
        if token_file is not None:
            try:
                token = token_file.read_text("utf-8").strip()
            except OSError as error:
                raise ConfigError(f"--token-file: cannot read {token_file}: {error.strerror}") from error
        with CloudClient(server, token=token) as opened:
            yield opened


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors into a message on stderr and an exit code: 2 wrong use, 4 refused, 5 not reachable, 1 else."""
    try:
        yield
    except CloudError as error:
        fail(error)


def fail(error: CloudError) -> NoReturn:
    """Print the error and end."""
    sys.stderr.write(f"lineside-cloud: {error.for_people()}\n")
    raise typer.Exit(error.exit_code) from error


def print_json(document: Any) -> None:
    """Print one document."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """Print rows for people, or a sentence when there are none."""
    if not rows:
        sys.stdout.write(empty + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(soft_wrap=True).print(table)
