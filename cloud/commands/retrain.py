"""`lineside-cloud retrain`: have a model trained again; `retrainings`: what was started and what came of it."""

import secrets
from datetime import UTC, datetime
from typing import Annotated

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, print_json, print_table


def retrain(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the audit log.")],
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Train a model again with all answers up to now, by the command or webhook that the watch file names.

    Example: lineside-cloud retrain phone_glass --reason "new camera in hall 2"
    """
    with client(server, token_file) as cloud:
        body = {"model": name, "reason": reason, "key": secrets.token_hex(8)}
        found = cloud.post("/v1/retrainings", body)
    if as_json:
        print_json(found)
    else:
        typer.echo(
            f"retraining {found['id']} of {name} with dataset {found['dataset'][:12]}…: {found['state']}", err=True
        )


def retrainings(server: Server = DEFAULT_URL, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """List retrainings: why, with which dataset version, how far, which bundle came of it.

    Example: lineside-cloud retrainings --json
    """
    with client(server, token_file) as cloud:
        found = cloud.get("/v1/retrainings")["retrainings"]
    if as_json:
        print_json(found)
        return
    rows = [
        [
            str(one["id"]),
            one["model"],
            one["state"],
            datetime.fromtimestamp(one["created_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%MZ"),
            one["dataset"][:12],
            (one["candidate"] or "–")[:12],
            one["error"] or one["reason"],
        ]
        for one in found
    ]
    columns = ("ID", "MODEL", "STATE", "ASKED", "DATASET", "CANDIDATE", "WHY")
    print_table(columns, rows, empty="Nothing was trained again yet.")
