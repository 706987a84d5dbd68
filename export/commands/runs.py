"""`lineside-export runs`: what was tried, with what, and how it came out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from export.commands.shared import print_json, said_plainly, table

app = typer.Typer(help="List, show and compare runs of fit.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--out", help="Where runs.sqlite lies: the --out of fit.", metavar="DIR")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


@app.command("list")
def list_runs(
    out: Folder = Path(),
    name: Annotated[str | None, typer.Option(help="Only runs of this model.")] = None,
    state: Annotated[str | None, typer.Option(help="Only running, done, failed, interrupted or killed ones.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only runs on the data whose digest begins so.")] = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    Example: lineside-export runs list --name gearwheel --state done
    """
    from export.runs import Runs

    with said_plainly():
        found = Runs(out).list(name=name, state=state, dataset=dataset)
    if as_json:
        print_json([vars(run) for run in found])
        return
    if not found:
        typer.echo("No runs. Make one: lineside-export fit DATA --name NAME")
        return
    rows = [
        [
            run.id,
            run.name,
            run.version,
            run.state,
            run.began_at,
            _figure(run.results),
            f"{run.resources.get('seconds', 0) / 60:.1f} min" if run.resources else "",
            run.dataset_digest[:8],
        ]
        for run in found
    ]
    typer.echo(table(["RUN", "MODEL", "VERSION", "STATE", "BEGAN", "FIGURE", "TOOK", "DATA"], rows))


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The run's id, or the beginning of it.")],
    out: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show one run: code, data, settings, results, resources, files.

    Example: lineside-export runs show 3f2a
    """
    from export.runs import Runs

    with said_plainly():
        found = Runs(out).get(run)
    if as_json:
        print_json(vars(found))
        return
    for name, value in vars(found).items():
        if isinstance(value, dict):
            typer.echo(f"{name}")
            _nested(value, 1)
        else:
            typer.echo(f"{name:<16}{value if value is not None else '–'}")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A run's id.")],
    second: Annotated[str, typer.Argument(help="Another run's id.")],
    out: Folder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show all that differs between two runs.

    Example: lineside-export runs compare 3f2a 91bc
    """
    from export.runs import Runs, differences

    with said_plainly():
        runs = Runs(out)
        found = differences(runs.get(first), runs.get(second))
    if as_json:
        print_json([{"what": what, "first": a, "second": b} for what, a, b in found])
        return
    typer.echo(table(["WHAT", "FIRST", "SECOND"], [[what, a[:48], b[:48]] for what, a, b in found]))


def _figure(results: dict[str, Any]) -> str:
    if "error" in results:
        return str(results["error"])[:40]
    if results.get("auroc") is not None:
        return f"AUROC {results['auroc']}"
    accuracy = results.get("judged", {}).get("accuracy", {}).get("value")
    return "" if accuracy is None else f"accuracy {accuracy}"


def _nested(values: dict[str, Any], depth: int) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            typer.echo(f"{'  ' * depth}{name}")
            _nested(value, depth + 1)
        else:
            typer.echo(f"{'  ' * depth}{name:<20} {value}")
