"""`lineside-export inspect`: checks a bundle and shows what it holds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from export.commands.shared import pairs, print_json, said_plainly, table

if TYPE_CHECKING:
    from edge.bundle import Bundle


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    html: Annotated[Path | None, typer.Option(help="Draw all of it as one HTML page.", metavar="PAGE")] = None,
    speed: Annotated[bool, typer.Option(help="With --html: measure latency and memory here.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print reference and manifest as JSON.")] = False,
) -> None:
    """Check a bundle and print what it holds: files, thresholds with their guarantee, figures.

    Example: lineside-export inspect gearwheel-1.0.0.lsb --html gearwheel.html
    """
    from export import pack

    with said_plainly():
        opened = pack.read(bundle)
        if html is not None:
            _draw(opened, html, speed=speed)
    if as_json:
        print_json(pack.plain(opened))
        return
    for line in _lines(opened):
        typer.echo(line)


def _draw(bundle: "Bundle", html: Path, *, speed: bool) -> None:
    from export import page
    from export.speed import measure

    extras = {"speeds": {name: item.plain() for name, item in measure(bundle).items()}} if speed else {}
    html.write_text(page.render(bundle, extras))
    typer.echo(f"drawn: {html}", err=True)


def _lines(bundle: "Bundle") -> list[str]:
    from export.promise import promise_in_words, thresholds_in_words

    ref, manifest = bundle.ref, bundle.manifest
    guarantee = manifest.policy.guarantee
    how = [] if guarantee is None else [part for part in (guarantee.method, guarantee.note) if part]
    ood = manifest.out_of_distribution
    return [
        f"{ref.name} {ref.version}  {ref.size_bytes} bytes  {ref.digest}",
        f"  {manifest.description or '(no description)'}",
        f"  task       {manifest.task}: {', '.join(manifest.labels)}",
        f"  input      {pairs(manifest.input.model_dump(exclude_none=True))}",
        *(f"  model      {name}: {item.precision}, {item.file}" for name, item in manifest.models.items()),
        f"  thresholds {thresholds_in_words(manifest.policy)}",
        *(f"  promise    {line}" for line in promise_in_words(bundle)),
        *(f"  proof      {line}" for line in how),
        *(f"  gate       {name}: {pairs(_plain(limits))}" for name, limits in manifest.gate.items()),
        f"  strangers  {'nothing tells them' if ood is None else f'{ood.method}, score above {ood.limit:.4g}'}",
        f"  reference  {pairs({name: sum(item.counts) for name, item in manifest.reference.items()}) or 'none'} values",
        f"  audit      {_AUDIT[manifest.audit.get('passed')] if manifest.audit else 'none'}",
        *_block("metrics", manifest.metrics),
        *_block("lineage", manifest.lineage),
    ]


def _plain(limits: Any) -> dict[str, Any]:
    return dict(limits.model_dump(exclude_none=True))


def _block(title: str, values: dict[str, Any]) -> list[str]:
    """Return nested figures, each grid under its title."""
    from export.grids import grids

    lines = []
    for grid in grids(title, values):
        lines += ["", f"  {grid.title}"]
        lines += [f"    {line}" for line in table(grid.head, grid.lines).splitlines()]
    return lines


_AUDIT = {None: "no limits were agreed", True: "passed", False: "FAILED"}
