"""`lineside-cloud alerts`: what fires, who looks after it, what nobody is to be told for a time."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.alerts import rules
from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, exit_codes, print_json, print_table
from cloud.errors import ConfigError

app = typer.Typer(help="What fires, who looks after it, what is silenced.", no_args_is_help=True)

_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


@app.command("list")
def show(
    ended: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the alerts that fire, and the silences.

    Example: lineside-cloud alerts list --all
    """
    with client(server, token_file) as cloud:
        found = cloud.get("/v1/alerts", all="true" if ended else None)
    if as_json:
        print_json(found)
        return
    rows = [
        [str(one["id"]), _state(one), one["severity"], _when(one["began_ms"]), one["words"]] for one in found["alerts"]
    ]
    print_table(("ID", "STATE", "SEVERITY", "SINCE", "WHAT"), rows, empty="Nothing fires.")
    for one in found["silences"]:
        about = f"{one['rule'] or 'every rule'}, {one['subject'] or 'every subject'}"
        typer.echo(f"silence {one['id']}: {about} until {_when(one['until_ms'])}, by {one['who']}: {one['why']}")


@app.command()
def ack(
    alert: Annotated[int, typer.Argument(help="Its number, as `alerts list` shows it.")],
    why: Annotated[str, typer.Option(help="Reason, kept in the audit log.")],
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Say that you look after an alert: nobody is told of it again.

    Example: lineside-cloud alerts ack 7 --why "lamp ordered"
    """
    with client(server, token_file) as cloud:
        found = cloud.post(f"/v1/alerts/{alert}/ack", {"why": why})
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{found['rule']}, {found['subject']}: acknowledged by {found['acked_by']}", err=True)


@app.command()
def silence(
    span: Annotated[str, typer.Option("--for", help="How long, for example 30m, 8h or 3d.")],
    why: Annotated[str, typer.Option(help="Reason, kept in the audit log.")],
    rule: Annotated[str, typer.Option(help="Only of this rule.")] = "",
    subject: Annotated[str, typer.Option(help="Only of this subject, for example a device.")] = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Tell nobody of some alerts for a time; the console still shows them.

    Example: lineside-cloud alerts silence --rule device-stale --subject box-1 --for 8h --why "hall 2 is rebuilt"
    """
    with exit_codes():
        for_s = _span_s(span)
    body = {"rule": rule, "subject": subject, "for_s": for_s, "why": why}
    with client(server, token_file) as cloud:
        found = cloud.post("/v1/alerts/silences", body)
    if as_json:
        print_json(found)
    else:
        typer.echo(f"silence {found['id']} until {_when(found['until_ms'])}", err=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Rules, channels and retraining, as cloud/watch.toml has them.")],
) -> None:
    """Check a file of rules, and name all of its mistakes at once.

    Example: lineside-cloud alerts check watch.toml
    """
    with exit_codes():
        found = rules.load(file)
    numbers = f"{len(found.rule)} rules, {len(found.channel)} channels, {len(found.retrain)} models to train again"
    typer.echo(f"{file}: {numbers}")


def _state(one: dict[str, Any]) -> str:
    words = [one["state"]]
    words += [f"acknowledged by {one['acked_by']}"] if one["acked_by"] else []
    words += ["silenced"] if one["silenced"] and one["state"] == "firing" else []
    words += [f"{tell['channel']} not told yet" for tell in one["told"] if not tell["done_ms"]]
    return ", ".join(words)


def _span_s(span: str) -> float:
    match = re.fullmatch(r"(\d{1,5})([mhd])", span)
    if match is None or not int(match[1]):
        raise ConfigError(f"--for: expected for example 30m, 8h or 3d, got {span!r}")
    return float(int(match[1]) * _UNITS_S[match[2]])


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
