"""`lineside-cloud models`: publish bundles and list them."""

from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, client, print_json, print_table

app = typer.Typer(help="Publish bundles and list them.", no_args_is_help=True)


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .lsb file.")],
    keys: Annotated[Path, typer.Option(help="Folder with release.pem, as `keys init` made it.", metavar="DIR")],
    default: Annotated[
        bool, typer.Option("--default", help="Devices that have no bundle of this model yet get it at once.")
    ] = False,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle with the release key, here, and upload it. The key never leaves this machine.

    Publishing the same file again changes nothing; another file under the same name and version is refused.

    Example: lineside-cloud models publish phone_glass-1.1.0.lsb --keys ~/lineside-keys
    """
    with client(server, token_file) as cloud:
        published = cloud.publish(bundle, keys / "release.pem", default=default)
    if as_json:
        print_json(published)
        return
    standing = "the default of its model" if published["is_default"] else published["state"]
    typer.echo(f"{published['name']} {published['version']} is published ({standing}): {published['digest']}")


@app.command(name="list")
def list_models(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """List the published bundles, newest version of each model first.

    Example: lineside-cloud models list phone_glass --json
    """
    with client(server, token_file) as cloud:
        bundles = cloud.bundles(name)
    if as_json:
        print_json(bundles)
        return
    rows = [
        [
            entry["name"],
            entry["version"],
            "default" if entry["is_default"] else entry["state"],
            f"{entry['size_bytes'] / 1e6:.2f} MB",
            entry["digest"][:12],
        ]
        for entry in bundles
    ]
    empty = "No bundle has been published yet. Publish one: lineside-cloud models publish BUNDLE --keys DIR"
    print_table(["MODEL", "VERSION", "STATE", "SIZE", "DIGEST"], rows, empty=empty)
