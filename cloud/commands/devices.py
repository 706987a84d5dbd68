"""`lineside-cloud devices`: the fleet, claims for new devices, revocation."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, print_json, print_table

app = typer.Typer(help="Show the fleet; take devices in and put them out.", invoke_without_command=True)


@app.callback()
def devices(
    context: typer.Context,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the devices of the fleet: fresh, stale since when, or unknown, and what they run.

    Example: lineside-cloud devices --json
    """
    if context.invoked_subcommand is not None:
        return
    with client(server, token_file) as cloud:
        fleet = cloud.devices()
    if as_json:
        print_json(fleet)
        return
    rows = [[view["device"], view["profile"], view["site"], _state(view), _serving(view)] for view in fleet]
    empty = "No device has enrolled yet. Make a claim: lineside-cloud devices claim"
    print_table(["DEVICE", "PROFILE", "SITE", "STATE", "SERVING"], rows, empty=empty)


@app.command()
def claim(
    profile: Annotated[str | None, typer.Option(help="Device profile it is for; any if left out.")] = None,
    site: Annotated[str | None, typer.Option(help="Site it is for; any if left out.")] = None,
    device: Annotated[str | None, typer.Option(help="Name it is for; any if left out.")] = None,
    hours: Annotated[float, typer.Option(help="How long it may be used for the first time.", min=0.01)] = 24.0,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a one-time token with which one device can enrol. It is shown once.

    Example: lineside-cloud devices claim --profile inspection-box --site hall-2
    """
    with client(server, token_file) as cloud:
        made = cloud.claim(profile=profile, site=site, device=device, ttl_s=hours * 3600)
    if as_json:
        print_json(made)
        return
    typer.echo(made["token"])
    typer.echo(f"For one device, until {_when(made['expires_at_ms'])}. It is not shown again.", err=True)


@app.command()
def revoke(
    device: Annotated[str, typer.Argument(help="Name of the device.")],
    why: Annotated[str, typer.Option(help="Reason, kept in the audit log.")] = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
) -> None:
    """Put a device out of the fleet: its password and token are of no use from now on.

    Example: lineside-cloud devices revoke box-3 --why "scrapped"
    """
    with client(server, token_file) as cloud:
        cloud.post(f"/v1/devices/{device}/revoke", {"why": why})
    typer.echo(f"{device} is out of the fleet.", err=True)


def _state(view: dict[str, Any]) -> str:
    if view["freshness"] == "stale":
        return f"stale since {_when(view['stale_since_ms'])}"
    return str(view["freshness"])


def _serving(view: dict[str, Any]) -> str:
    stations = ((view["reported"] or {}).get("stations") or {}).items()
    parts = []
    for name, station in stations:
        serving = station.get("serving")
        parts.append(f"{name}: {serving['name']} {serving['version']}" if serving else f"{name}: nothing")
    return ", ".join(parts) or "-"


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
