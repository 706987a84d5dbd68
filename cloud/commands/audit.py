"""`lineside-cloud audit`: read the log of changes, and check that nobody has altered it.

It reads the database itself, so that it needs no control plane that runs, and trusts none.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloud import audit
from cloud.commands.shared import AsJson, ConfigFile, DataDir, exit_codes, kept_here, print_json
from cloud.errors import ConfigError
from cloud.store import CloudStore

app = typer.Typer(help="Read the log of changes; check that nobody has altered it.", no_args_is_help=True)


@app.command("list")
def show(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    last: Annotated[int, typer.Option(min=1, help="How many, the newest.")] = 20,
    who: Annotated[str | None, typer.Option(help="Only what this person or device did.")] = None,
    what: Annotated[str | None, typer.Option(help="Only this, for example device_revoked.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the newest changes: who, what, why.

    Example: lineside-cloud audit list --what device_revoked
    """
    with _opened(config, data_dir) as (store, _), store.read() as connection:
        rows = audit.rows(connection, last=last, who=who, what=what)
    if as_json:
        print_json(rows)
        return
    for row in rows:
        why = f"  ({row['why']})" if row["why"] else ""
        typer.echo(f"{row['id']}  {_when(row['at_ms'])}  {row['who']}  {row['what']}  {audit.about(row)}{why}")
    if not rows:
        typer.echo("Nothing has been changed yet.", err=True)


@app.command()
def verify(
    config: ConfigFile = None,
    data_dir: DataDir = None,
    expect: Annotated[
        list[str] | None, typer.Option(help="A head that was written down earlier; may be given several times.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that every row is there and as it was written; exit code 1 if not.

    The head that is printed stands for the whole log up to now: write it down where nobody who can reach the database
    can, and give it as --expect later.

    Example: lineside-cloud audit verify --expect 41:9f86d0…
    """
    with _opened(config, data_dir) as (store, head_file), store.read() as connection:
        expected = [_head(written) for written in expect or ()]
        if kept := head_file.read():
            expected.append(kept)
        verdict = audit.verify(connection, tuple(expected))
    if as_json:
        print_json({"rows": verdict.rows, "head": str(verdict.head), "faults": verdict.faults})
    else:
        for fault in verdict.faults:
            typer.echo(fault)
        typer.echo(f"{verdict.rows} rows, {len(verdict.faults) or 'no'} faults; head {verdict.head}")
    if verdict.faults:
        raise typer.Exit(1)


@contextmanager
def _opened(config: Path | None, data_dir: Path | None) -> Iterator[tuple[CloudStore, audit.HeadFile]]:
    with exit_codes():
        chosen = kept_here(config, data_dir)
        opened = CloudStore.open(chosen.database_url)
        try:
            yield opened, audit.HeadFile(chosen.data_dir)
        finally:
            opened.close()


def _head(written: str) -> audit.Head:
    try:
        return audit.Head.parse(written)
    except ValueError as error:
        raise ConfigError(f"--expect: {error}", hint="as `audit verify` prints it, NUMBER:DIGEST") from error


def _when(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
