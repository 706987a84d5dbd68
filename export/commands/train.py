"""`lineside-export train`: runs the recipe of a reference model."""

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from export.commands.shared import fail, said_plainly


def train(
    name: Annotated[str, typer.Argument(help="A folder of models/, for example phone_glass.")],
    version: Annotated[str | None, typer.Option(help="Version to make; the recipe's first if not given.")] = None,
) -> None:
    """Run the recipe of a reference model and write its bundle. Needs torch and a checkout of the source."""
    sys.path.insert(0, str(Path.cwd()))
    try:
        recipe = importlib.import_module(f"models.{name}.train")
        typer.echo(f"training {name}, this takes some minutes", err=True)
        with said_plainly():
            report = recipe.main(version) if version else recipe.main()
    except ModuleNotFoundError as error:
        fail(f"models/{name}/train.py: {error}\n  → run it in a checkout, with torch and the export extra installed")
    except KeyError as error:
        fail(f"{name} has no version {error}\n  → its versions are listed in models/{name}/train.py")
    typer.echo(f"{report.path}: {report.ref.size_bytes} bytes, digest {report.ref.digest}")
