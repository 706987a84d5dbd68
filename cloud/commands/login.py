"""`lineside-cloud login` and `logout`: keep a token of one's own in a file for the other commands."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloud.blobs import write_durably
from cloud.commands.shared import DEFAULT_URL, Server, client, exit_codes
from cloud.errors import ConfigError

TokenFile = Annotated[
    Path, typer.Option("--token-file", envvar="LINESIDE_TOKEN_FILE", help="File for the token.", metavar="FILE")
]


def login(
    name: Annotated[str, typer.Argument(help="Your name.")],
    token_file: TokenFile,
    label: Annotated[str, typer.Option(help="What the token is for, as it stands in the list.")] = "command line",
    days: Annotated[float, typer.Option(help="How long it is good.", min=0.01, max=366)] = 90.0,
    server: Server = DEFAULT_URL,
) -> None:
    """Sign in, and keep a token in a file that only you read; the password is asked for, or read from a pipe.

    Other commands take the file by --token-file or LINESIDE_TOKEN_FILE.

    Example: lineside-cloud login ada --token-file ~/.lineside-token
    """
    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    with client(server, None) as cloud:
        made = cloud.post("/v1/login", {"name": name, "password": password, "label": label, "days": days})
        try:
            write_durably(token_file, (made["token"] + "\n").encode(), mode=0o600)
        except OSError as error:
            raise ConfigError(f"--token-file: cannot write {token_file}: {error.strerror}") from error
    until = datetime.fromtimestamp(made["expires_at_ms"] / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d")
    typer.echo(f"{made['person']}, {made['role']}: token in {token_file}, good until {until}.", err=True)


def logout(token_file: TokenFile, server: Server = DEFAULT_URL) -> None:
    """Put the token in a file out of use, and remove the file.

    Example: lineside-cloud logout --token-file ~/.lineside-token
    """
    with client(server, token_file) as cloud:
        token_id = cloud.get("/v1/me")["token"]
        if token_id is None:
            raise ConfigError(f"--token-file: {token_file} holds no person's token")
        cloud.delete(f"/v1/tokens/{token_id}")
    with exit_codes():
        try:
            token_file.unlink()
        except OSError as error:
            raise ConfigError(f"--token-file: cannot remove {token_file}: {error.strerror}") from error
    typer.echo("Signed out.", err=True)
