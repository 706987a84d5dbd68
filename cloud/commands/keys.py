"""`lineside-cloud keys`: make the keys of the bundle repository."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloud import keys
from cloud.commands.shared import AsJson, exit_codes, print_json
from cloud.errors import ConfigError, ConflictError

app = typer.Typer(help="Make the keys that bundles are signed with.", no_args_is_help=True)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder for the keys.", metavar="DIR")],
    server_dir: Annotated[
        Path | None,
        typer.Option(help="Also copy the server's part here, for example lineside-cloud/keys.", metavar="DIR"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make root and release keys to keep offline, and the part that the server needs.

    DIR/root.pem and DIR/release.pem never belong on the server. DIR/root.json is flashed onto devices.
    DIR/server/ goes into the server's keys folder (`registry.keys_dir`).

    Example: lineside-cloud keys init ~/lineside-keys --server-dir lineside-cloud/keys
    """
    with exit_codes():
        if server_dir is not None and (server_dir / "root.json").exists():
            raise ConflictError(f"{server_dir} holds keys already", hint="a fleet has one root; remove it first")
        made = keys.create(folder, now=datetime.now(UTC).replace(microsecond=0))
        if server_dir is not None:
            try:
                shutil.copytree(made, server_dir, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                raise ConfigError(f"{server_dir}: cannot copy the keys: {error}") from error
    places = {
        "root": str(folder / "root.json"),
        "release_key": str(folder / "release.pem"),
        "server": str(server_dir or made),
    }
    if as_json:
        print_json(places)
        return
    typer.echo(f"Keep offline:        {folder / 'root.pem'}, {folder / 'release.pem'}")
    typer.echo(f"Flash onto devices:  {places['root']}")
    typer.echo(f"For the server:      {places['server']}")
