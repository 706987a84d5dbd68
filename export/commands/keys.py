"""`lineside-export keys` and `sign`: keys and signatures, offline."""

from pathlib import Path
from typing import Annotated

import typer

from export.commands.shared import print_json, said_plainly

app = typer.Typer(help="Make and look at signing keys, offline.", no_args_is_help=True)

Key = Annotated[
    Path, typer.Option(help="Private key in PEM: release.pem of `keys make` or `lineside-cloud keys init`.")
]


@app.command()
def make(folder: Annotated[Path, typer.Argument(help="Where release.pem and release.pub.pem go.")]) -> None:
    """Make a key pair. Keep release.pem offline and give release.pub.pem to whoever checks signatures.

    A fleet has its own release key, made by `lineside-cloud keys init`; that one signs what its devices shall take.

    Example: lineside-export keys make ~/lineside-keys
    """
    from export import signing

    with said_plainly():
        path = signing.make(folder)
    typer.echo(
        f"Keep offline:  {path}\nGive away:     {folder / signing.PUBLIC_NAME}\nKey id:        {signing.key_id(path)}"
    )


@app.command()
def show(key: Annotated[Path, typer.Argument(help="A private or public key in PEM.")]) -> None:
    """Show a key's id and its public part.

    Example: lineside-export keys show ~/lineside-keys/release.pem
    """
    from export import signing

    with said_plainly():
        typer.echo(f"{signing.key_id(key)}\n{signing.public_pem(key)}", nl=False)


def sign(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    key: Annotated[Path | None, typer.Option(help="Private key in PEM, to sign with.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check the signature beside the bundle; sign nothing.")
    ] = False,
    public: Annotated[Path | None, typer.Option(help="With --check: the public key to trust, in PEM.")] = None,
    targets: Annotated[
        Path | None, typer.Option(help="Add it to this signed list of bundles (TUF targets.json) as well.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the new list goes; TARGETS itself if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Sign a bundle: a signature beside it, and an entry in the list that devices trust if --targets is given.

    Example: lineside-export sign gearwheel-1.0.0.lsb --key ~/lineside-keys/release.pem
    """
    from export import signing

    if (key is None) == (not check):
        raise typer.BadParameter("give --key to sign, or --check", param_hint="--key")
    with said_plainly():
        if check:
            found = {"bundle": str(bundle), "keyid": signing.verify(bundle, public), "trusted": public is not None}
        else:
            assert key is not None
            found = {"bundle": str(bundle), "keyid": signing.key_id(key), "signature": str(signing.sign(bundle, key))}
            if targets is not None:
                found["targets_version"] = signing.into_list(bundle, key, targets, out or targets)
    if as_json:
        print_json(found)
        return
    words = "fits" if check else "written"
    typer.echo(f"signature {words}: {bundle.name}, key {str(found['keyid'])[:16]}")
    if check and public is None:
        typer.echo("  note: no --public was given, so it is not known whose key that is", err=True)
