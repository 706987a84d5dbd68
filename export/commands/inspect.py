"""`lineside-export inspect`: checks a bundle and shows what it holds."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from export.commands.shared import pairs, print_json, said_plainly


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    html: Annotated[Path | None, typer.Option(help="Draw all of it as one HTML page.", metavar="PAGE")] = None,
    speed: Annotated[bool, typer.Option(help="With --html: measure latency and memory here.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print reference and manifest as JSON.")] = False,
) -> None:
    """Check a bundle and print what it holds: files, thresholds with their guarantee, figures.

    Example: lineside-export inspect gearwheel-1.0.0.lsb --html gearwheel.html
    """
    from export.pack import unpack

    with said_plainly():
        found = unpack(bundle)
        if html is not None:
            _draw(bundle, html, speed=speed)
    if as_json:
        print_json(found)
        return
    for line in _lines(found):
        typer.echo(line)


def _draw(bundle: Path, html: Path, *, speed: bool) -> None:
    from export import pack, page
    from export.speed import measure

    opened = pack.read(bundle)
    extras = {"speeds": {name: item.plain() for name, item in measure(opened).items()}} if speed else {}
    html.write_text(page.render(opened, extras))
    typer.echo(f"drawn: {html}", err=True)


def _lines(found: dict[str, Any]) -> list[str]:
    ref, manifest = found["ref"], found["manifest"]
    policy = dict(manifest["policy"])
    guarantee = policy.pop("guarantee", {})
    policy.pop("kind")
    return [
        f"{ref['name']} {ref['version']}  {ref['size_bytes']} bytes  {ref['digest']}",
        f"  {manifest['description']}" if manifest["description"] else "  (no description)",
        f"  task       {manifest['task']}: {', '.join(manifest['labels'])}",
        f"  input      {pairs(manifest['input'])}",
        *(f"  model      {name}: {item['precision']}, {item['file']}" for name, item in manifest["models"].items()),
        f"  thresholds {pairs(policy)}",
        f"  guarantee  {pairs(guarantee) or 'none'}",
        *(f"  gate       {name}: {pairs(limits)}" for name, limits in manifest["gate"].items()),
        f"  reference  {pairs({name: sum(item['counts']) for name, item in manifest['reference'].items()})} values",
        f"  metrics    {json.dumps(manifest['metrics'])}",
        f"  lineage    {json.dumps(manifest['lineage'])}",
    ]
