"""What all subcommands share: the server's address, JSON or text, errors to exit codes."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from cloud import config as settings
from cloud.client import CloudClient
from cloud.errors import CloudError, ConfigError, NotFoundError

DEFAULT_URL = "http://127.0.0.1:8440"

Server = Annotated[
    str,
    typer.Option(
        "--server",
        envvar="LINESIDE_CLOUD",
        help="Address of the control plane; for https the file in LINESIDE_CA is believed, its ca.pem.",
        metavar="URL",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        envvar="LINESIDE_TOKEN_FILE",
        help="File with your token (`lineside-cloud login`) or the operator's, where you are asked to sign in.",
        metavar="FILE",
    ),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings of the control plane.", metavar="FILE")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Folder that it keeps everything in.", metavar="DIR")]
Unaudited = Annotated[
    str,
    typer.Option(
        "--unaudited",
        help="Why a version may be given out without an audit that passed; kept in the audit log.",
        metavar="REASON",
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
        with CloudClient(server, token=token, ca=_ca_file()) as opened:
            yield opened


def _ca_file() -> Path | None:
    named = os.environ.get("LINESIDE_CA")
    return Path(named) if named else None


def kept_here(config: Path | None, data_dir: Path | None) -> settings.CloudConfig:
    """Return the settings of a control plane on this machine, for commands that open its database themselves.

    Raises:
        ConfigError: the settings are wrong.
        NotFoundError: nothing was kept there yet.
    """
    chosen = settings.load(config)
    if data_dir is not None:
        store = chosen.store.model_copy(update={"data_dir": data_dir.resolve()})
        chosen = chosen.model_copy(update={"store": store})
    if not chosen.store.url and not (chosen.data_dir / "cloud.sqlite").exists():
        raise NotFoundError(
            f"no control plane has kept anything in {chosen.data_dir}", hint="give --config or --data-dir"
        )
    return chosen


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
