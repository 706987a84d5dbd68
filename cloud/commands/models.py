"""`lineside-cloud models`: publish versions, show and compare them, approve and retire them, free the disk."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cloud.commands.shared import DEFAULT_URL, AsJson, Server, TokenFile, Unaudited, client, print_json, print_table
from cloud.comparing import flat
from cloud.lifecycle import AUDIT_WORDS

app = typer.Typer(
    help="Publish versions of models, compare them, and say what may be done with them.", no_args_is_help=True
)

Model = Annotated[str, typer.Argument(help="Name of the model.")]
Published = Annotated[str, typer.Argument(help="Version, as `models list` shows it.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")]


@app.command()
def publish(
    bundle: Annotated[Path, typer.Argument(help="The bundle, a .lsb file.")],
    keys: Annotated[Path, typer.Option(help="Folder with release.pem, as `keys init` made it.", metavar="DIR")],
    default: Annotated[
        bool, typer.Option("--default", help="Devices that have no bundle of this model yet get it at once.")
    ] = False,
    unaudited: Unaudited = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign a bundle with the release key, here, and upload it. The key never leaves this machine.

    Publishing the same file again changes nothing, or brings back a file that was removed; another file under the same
    name and version is refused. A version whose audit did not pass becomes the default only with --unaudited REASON.

    Example: lineside-cloud models publish phone_glass-1.1.0.lsb --keys ~/lineside-keys
    """
    with client(server, token_file) as cloud:
        published = cloud.publish(bundle, keys / "release.pem", default=default, unaudited=unaudited)
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
            _standing(entry),
            entry["audit"].replace("_", " "),
            f"{entry['size_bytes'] / 1e6:.2f} MB",
            entry["digest"][:12],
        ]
        for entry in bundles
    ]
    empty = "No bundle has been published yet. Publish one: lineside-cloud models publish BUNDLE --keys DIR"
    print_table(["MODEL", "VERSION", "STATE", "AUDIT", "SIZE", "DIGEST"], rows, empty=empty)


@app.command()
def show(
    name: Model,
    version: Published,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Show one version: its state, audit and promise, its figures, and where it comes from.

    Example: lineside-cloud models show phone_glass 1.1.0
    """
    with client(server, token_file) as cloud:
        shown = cloud.get(f"/v1/bundles/{name}/{version}")
    if as_json:
        print_json(shown)
        return
    manifest = shown["manifest"]
    typer.echo(f"{name} {version}: {_standing(shown)}; {AUDIT_WORDS[shown['audit']]}")
    typer.echo(f"{shown['digest']}, {shown['size_bytes']} bytes, published by {shown['published_by']}")
    for title in ("lineage", "policy", "metrics", "audit"):
        rows = [[key, _value(value)] for key, value in flat(manifest.get(title) or {})]
        if rows:
            typer.echo("")
            print_table([title.upper(), ""], rows, empty="")


@app.command()
def compare(
    name: Model,
    first: Annotated[str, typer.Argument(help="One version.")],
    second: Annotated[str, typer.Argument(help="The other version.")],
    every: Annotated[bool, typer.Option("--all", help="Also what is the same in both.")] = False,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Hold two versions of a model side by side: figures by class and slice, size, latency, thresholds, labels, input.

    Example: lineside-cloud models compare phone_glass 1.0.0 1.1.0 --json
    """
    with client(server, token_file) as cloud:
        found = cloud.get(f"/v1/bundles/{name}/{first}/compare/{second}")
    if as_json:
        print_json(found)
        return
    if not found["same_data"]:
        typer.echo("The figures come from different data, or do not say from which: they compare only roughly.\n")
    for section in found["sections"]:
        rows = [_row(row) for row in section["rows"] if every or not row["same"]]
        if rows:
            print_table([section["title"].upper(), first, second, "DIFFERENCE"], rows, empty="")
            typer.echo("")


@app.command()
def approve(
    name: Model,
    version: Published,
    reason: Reason,
    default: Annotated[
        bool, typer.Option("--default", help="Also make it what devices get that have no bundle of this model yet.")
    ] = False,
    unaudited: Unaudited = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Approve a version, so that its file stays. Asks for an audit that passed, or why it may go without.

    Example: lineside-cloud models approve phone_glass 1.1.0 --reason "a month at hall 2 without a complaint" --default
    """
    move = "default" if default else "approve"
    with client(server, token_file) as cloud:
        moved = cloud.post(f"/v1/bundles/{name}/{version}/{move}", {"why": reason, "unaudited": unaudited})
    _told(moved, as_json=as_json)


@app.command()
def retire(
    name: Model,
    version: Published,
    reason: Reason,
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Retire a version: it cannot be rolled out any more, for good. Devices that run it go on.

    Example: lineside-cloud models retire phone_glass 1.2.0 --reason "trained on broken labels"
    """
    with client(server, token_file) as cloud:
        moved = cloud.post(f"/v1/bundles/{name}/{version}/retire", {"why": reason})
    _told(moved, as_json=as_json)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=1, help="Newest versions of each model that are kept anyway.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")] = "",
    server: Server = DEFAULT_URL,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Remove bundle files that nobody can need any more, and what uploads that were cut off have left.

    A file stays as long as a device has it, a desired state or an open rollout names it, it is the default or approved,
    or it is among the newest. A removed one comes back by publishing the same file again.

    Example: lineside-cloud models gc --dry-run
    """
    request = {"dry_run": dry_run, "keep_last": keep_last, "why": reason}
    with client(server, token_file) as cloud:
        done = cloud.post("/v1/bundles/gc", request)
    if as_json:
        print_json(done)
        return
    rows = [[one["name"], one["version"], "kept", one["kept_for"]] for one in done["kept"]]
    rows += [[one["name"], one["version"], "would go" if dry_run else "removed", ""] for one in done["removed"]]
    print_table(["MODEL", "VERSION", "FILE", "WHY"], rows, empty="No bundle file is here.")
    strays = done["stray_bundles"] + done["stray_inputs"]
    verb = "would be freed" if dry_run else "freed"
    typer.echo(f"{done['freed_bytes'] / 1e6:.2f} MB {verb}, {strays} left-over files of uploads among it", err=True)


def _told(moved: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(moved)
    else:
        typer.echo(f"{moved['name']} {moved['version']} is {_standing(moved)}", err=True)


def _standing(entry: dict[str, Any]) -> str:
    words = "default" if entry["is_default"] else str(entry["state"])
    return words if entry["has_file"] else f"{words}, file removed"


def _row(row: dict[str, Any]) -> list[str]:
    difference = row["difference"]
    return [row["what"], _value(row["first"]), _value(row["second"]), f"{difference:+.4g}" if difference else ""]


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
