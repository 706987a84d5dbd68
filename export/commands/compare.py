"""`lineside-export compare`: two bundles side by side."""

from pathlib import Path
from typing import Annotated

import typer

from export.commands.shared import print_json, said_plainly, table


def compare(
    first: Annotated[Path, typer.Argument(help="A .lsb file.")],
    second: Annotated[Path, typer.Argument(help="Another .lsb file.")],
    speed: Annotated[bool, typer.Option(help="Measure latency and memory of both here; takes some seconds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Compare two bundles: figures, size, latency, thresholds. Rows that differ are marked.

    Example: lineside-export compare gearwheel-1.0.0.lsb gearwheel-1.1.0.lsb
    """
    from export import comparing
    from export.pack import read
    from export.speed import measure

    with said_plainly():
        a, b = read(first), read(second)
        rows = comparing.compare(a, b, (measure(a), measure(b)) if speed else None)
    if as_json:
        print_json([{"what": row.what, "first": row.first, "second": row.second} for row in rows])
        return
    typer.echo(table(["", "", "FIRST", "SECOND"], [["" if r.same else "≠", r.what, r.first, r.second] for r in rows]))
    if a.manifest.lineage.get("dataset_digest") != b.manifest.lineage.get("dataset_digest"):
        typer.echo("\nThe figures come from different data. On the same: lineside-export audit NEW DATA --against OLD")
