"""`lineside-cloud authority`: which authority of certificates is trusted, another in its place, its end."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, print_json, print_table

app = typer.Typer(help="The authority by which devices and control plane believe each other.", no_args_is_help=True)

Why = Annotated[str, typer.Option(help="Reason, kept in the audit log.")]
DAY_S = 86_400.0


@app.command()
def status(server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Show the authorities, and the devices that do not know the newest one yet.

    Example: lineside-cloud authority status
    """
    with client(server, token_file) as cloud:
        found = cloud.get("/v1/authority")
    _print(found, as_json=as_json)


@app.command()
def rotate(
    why: Why,
    overlap_days: Annotated[
        float, typer.Option(help="How long both are trusted: devices away longer enrol anew.")
    ] = 90,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Put another authority in the place of the present one, while devices go on.

    The next signs as soon as the broker takes its certificates (a Mosquitto has to be restarted for that). Devices
    fetch it and renew their certificates within half a day; after the overlap the present one is retired for good.

    Example: lineside-cloud authority rotate --why "a backup was stolen" --overlap-days 7
    """
    with client(server, token_file) as cloud:
        found = cloud.post("/v1/authority/rotate", {"why": why, "overlap_s": overlap_days * DAY_S})
    _print(found, as_json=as_json)


@app.command()
def retire(why: Why, server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """End the overlap now: nobody trusts the old authority any more, and its key is gone.

    Devices that `authority status` names as behind have to enrol again, by a new claim.

    Example: lineside-cloud authority retire --why "all devices have renewed"
    """
    with client(server, token_file) as cloud:
        found = cloud.post("/v1/authority/retire", {"why": why})
    _print(found, as_json=as_json)


def _print(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows = [
        [one["fingerprint"][:16], one["state"], _when(one["created_at_ms"]), _until(one), str(one["devices"])]
        for one in found["authorities"]
    ]
    print_table(("AUTHORITY", "STATE", "MADE", "UNTIL", "DEVICES"), rows, empty="There is none.")
    behind = found["behind"]
    if behind["devices"]:
        more = ", …" if behind["devices"] > len(behind["first"]) else ""
        typer.echo(f"{behind['devices']} devices do not know the newest yet: {', '.join(behind['first'])}{more}")
    if found["unused_claims"]:
        typer.echo(f"{found['unused_claims']} unused claims name the old one and end with it.")


def _until(one: dict[str, Any]) -> str:
    at_ms = one["retired_at_ms"] or one["retire_at_ms"] or one["ends_at_ms"]
    return _when(at_ms)


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
