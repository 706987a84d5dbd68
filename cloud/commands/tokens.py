"""`lineside-cloud tokens`: one's own tokens for scripts."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, print_json, print_table

app = typer.Typer(help="Your own tokens for scripts.", no_args_is_help=True)


@app.command("list")
def show(server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List your tokens that are good.

    Example: lineside-cloud tokens list --token-file ~/.lineside-token
    """
    with client(server, token_file) as cloud:
        found = cloud.get("/v1/tokens")
    if as_json:
        print_json(found)
        return
    rows = [[one["id"], one["label"], one["role"], _day(one["expires_at_ms"])] for one in found]
    print_table(["ID", "FOR", "ROLE", "UNTIL"], rows, empty="You have none.")


@app.command()
def create(
    label: Annotated[str, typer.Argument(help="What it is for.")],
    role: Annotated[str | None, typer.Option(help="The most it may do; your own role if left out.")] = None,
    days: Annotated[float, typer.Option(help="How long it is good.", min=0.01, max=366)] = 90.0,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a token, for example for a script that may only look. It is shown once.

    Example: lineside-cloud tokens create "nightly report" --role viewer --token-file ~/.lineside-token
    """
    with client(server, token_file) as cloud:
        made = cloud.post("/v1/tokens", {"label": label, "role": role, "days": days})
    if as_json:
        print_json(made)
        return
    typer.echo(made["token"])
    typer.echo(f"Number {made['id']}, {made['role']}, until {_day(made['expires_at_ms'])}. Not shown again.", err=True)


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its number in the list.")],
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Put one of your tokens out of use.

    Example: lineside-cloud tokens revoke 3f9c0a71b2de --token-file ~/.lineside-token
    """
    with client(server, token_file) as cloud:
        cloud.delete(f"/v1/tokens/{token}")
    typer.echo(f"Token {token} is of no use any more.", err=True)


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d")
