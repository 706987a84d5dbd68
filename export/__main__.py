"""`lineside-export`: looks into bundles and runs the recipes of the reference models.

Rules:
- Nothing heavy is imported before the command that needs it.
- Exit codes: 0 done, 2 wrong arguments, 3 the bundle or recipe is not usable.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    name="lineside-export",
    help="Build bundles from trained networks, and look into them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_UNUSABLE = 3


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print reference and manifest as JSON.")] = False,
) -> None:
    """Check a bundle and print what it holds: files, thresholds with their guarantee, figures."""
    from edge.errors import LinesideError
    from export.pack import unpack

    try:
        found = unpack(bundle)
    except LinesideError as error:
        _fail(error.for_people())
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in _lines(found):
        typer.echo(line)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A folder of models/, for example phone_glass.")],
    version: Annotated[str | None, typer.Option(help="Version to make; the recipe's first if not given.")] = None,
) -> None:
    """Run the recipe of a reference model and write its bundle. Needs torch and a checkout of the source."""
    from edge.errors import LinesideError

    sys.path.insert(0, str(Path.cwd()))
    try:
        recipe = importlib.import_module(f"models.{name}.train")
        typer.echo(f"training {name}, this takes some minutes", err=True)
        report = recipe.main(version) if version else recipe.main()
    except ModuleNotFoundError as error:
        _fail(f"models/{name}/train.py: {error}\n  → run it in a checkout, with torch and the export extra installed")
    except KeyError as error:
        _fail(f"{name} has no version {error}\n  → its versions are listed in models/{name}/train.py")
    except LinesideError as error:
        _fail(error.for_people())
    typer.echo(f"{report.path}: {report.ref.size_bytes} bytes, digest {report.ref.digest}")


def main() -> None:
    """Run the command line."""
    app()


def _lines(found: dict[str, Any]) -> list[str]:
    ref, manifest = found["ref"], found["manifest"]
    policy = dict(manifest["policy"])
    guarantee = policy.pop("guarantee", {})
    policy.pop("kind")
    return [
        f"{ref['name']} {ref['version']}  {ref['size_bytes']} bytes  {ref['digest']}",
        f"  {manifest['description']}" if manifest["description"] else "  (no description)",
        f"  task       {manifest['task']}: {', '.join(manifest['labels'])}",
        f"  input      {_pairs(manifest['input'])}",
        *(f"  model      {name}: {item['precision']}, {item['file']}" for name, item in manifest["models"].items()),
        f"  thresholds {_pairs(policy)}",
        f"  guarantee  {_pairs(guarantee) or 'none'}",
        *(f"  gate       {name}: {_pairs(limits)}" for name, limits in manifest["gate"].items()),
        f"  reference  {_pairs({name: sum(item['counts']) for name, item in manifest['reference'].items()})} values",
        f"  metrics    {json.dumps(manifest['metrics'])}",
        f"  lineage    {json.dumps(manifest['lineage'])}",
    ]


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value != "")


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(_UNUSABLE)


if __name__ == "__main__":
    main()
