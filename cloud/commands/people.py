"""`lineside-cloud people`: accounts of people and their roles.

It opens the database itself, so that the first account and a forgotten password need no sign-in: whoever may write
the database may do everything anyway. From elsewhere, admins use the console's page People.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloud.client import user_name
from cloud.clock import SystemClock
from cloud.commands.shared import AsJson, ConfigFile, DataDir, exit_codes, kept_here, print_json, print_table
from cloud.config import CloudConfig
from cloud.people import Invite, People, Person
from cloud.roles import Role
from cloud.store import CloudStore

app = typer.Typer(help="Accounts of people and their roles, at the server's own machine.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name to sign in with: small letters, digits, . _ - @")]
RoleName = Annotated[str, typer.Argument(help="viewer, reviewer, operator or admin.", metavar="ROLE")]
Why = Annotated[str, typer.Option(help="Reason, kept in the audit log.")]
Address = Annotated[
    str | None, typer.Option("--url", help="Address for the link, if not that of the settings.", metavar="URL")
]


@app.command("list")
def show(config: ConfigFile = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List all accounts with their roles.

    Example: lineside-cloud people list --json
    """
    with _opened(config, data_dir) as (opened, _):
        found = opened.everyone()
    if as_json:
        print_json([one.as_json() for one in found])
        return
    rows = [[one.name, one.role.word, _state(one), _when(one.created_at_ms), one.created_by] for one in found]
    empty = "Nobody has an account. Make the first: lineside-cloud people add NAME --role admin"
    print_table(["NAME", "ROLE", "PASSWORD", "SINCE", "BY"], rows, empty=empty)


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, reviewer, operator or admin.")] = "viewer",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    url: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make an account, and print the one-time link by which its owner chooses a password.

    As soon as there is one account, everybody has to sign in, also on this machine.

    Example: lineside-cloud people add ada --role reviewer
    """
    with _opened(config, data_dir) as (opened, chosen):
        first = not opened.exist()
        invite = opened.add(name, Role.named(role), who=_who())
    if first:
        typer.echo("From now on everybody has to sign in, also on this machine.", err=True)
    _print(invite, url or _address(chosen), as_json=as_json)


@app.command()
def invite(
    name: Name,
    why: Why = "",
    config: ConfigFile = None,
    data_dir: DataDir = None,
    url: Address = None,
    as_json: AsJson = False,
) -> None:
    """Make a new link, for somebody who forgot the password or was too late; a link that was not used is void.

    Example: lineside-cloud people invite ada
    """
    with _opened(config, data_dir) as (opened, chosen):
        made = opened.invite(name, who=_who(), why=why)
    _print(made, url or _address(chosen), as_json=as_json)


@app.command("role")
def change_role(name: Name, role: RoleName, why: Why = "", config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Let somebody do more or less, from the next request on.

    Example: lineside-cloud people role ada operator --why "takes over the night shift"
    """
    with _opened(config, data_dir) as (opened, _):
        opened.set_role(name, Role.named(role), who=_who(), why=why)
    typer.echo(f"{name} is {role} now.", err=True)


@app.command()
def remove(name: Name, why: Why = "", config: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Remove an account; its sessions and tokens end at once. What its owner did stays on record.

    Example: lineside-cloud people remove ada --why "left the company"
    """
    with _opened(config, data_dir) as (opened, _):
        opened.remove(name, who=_who(), why=why)
        last = not opened.exist()
    typer.echo(f"{name} has no account any more.", err=True)
    if last:
        typer.echo("Nobody has one: where only this machine reaches it, whoever sits here may do everything.", err=True)


@contextmanager
def _opened(config: Path | None, data_dir: Path | None) -> Iterator[tuple[People, CloudConfig]]:
    with exit_codes():
        chosen = kept_here(config, data_dir)
        store = CloudStore.open(chosen.database_url)
        try:
            yield People(store, SystemClock()), chosen
        finally:
            store.close()


def _who() -> str:
    return f"{user_name()} at the server"[:64]


def _address(config: CloudConfig) -> str:
    server = config.server
    host = f"[{server.host}]" if ":" in server.host else server.host
    return server.public_url or f"{'https' if config.console_tls else 'http'}://{host}:{server.port}"


def _print(invite: Invite, url: str, *, as_json: bool) -> None:
    link = url.rstrip("/") + invite.path
    if as_json:
        print_json({"name": invite.name, "link": link, "expires_at_ms": invite.expires_at_ms})
        return
    typer.echo(link)
    typer.echo(
        f"For {invite.name} to choose a password, once, until {_when(invite.expires_at_ms)}. It is not shown again.",
        err=True,
    )


def _state(one: Person) -> str:
    if one.has_password:
        return "chosen"
    over = (one.invite_expires_at_ms or 0) <= SystemClock().now_ms()
    return "not chosen, the link is over" if over else "not chosen yet"


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M")
