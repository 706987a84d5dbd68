"""`lineside-edge`: reads the arguments and hands them to `edge.commands`, turning errors into exit codes."""

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge.errors import LinesideError

for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")  # as in the children: more of them add up in another order, and answers differ

WRONG_USE = 2
"""Exit code for wrong arguments, configuration or bundle."""

app = typer.Typer(
    name="lineside-edge",
    help="Run models on a device: decide, hand the unsure to a person, log everything.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The device's TOML file.", show_default=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON, for machines.")]
DEFAULT_CONFIG = Path("box.toml")


@app.command()
def infer(
    bundle: Annotated[Path, typer.Argument(help="A bundle (.lsb).")],
    paths: Annotated[list[str], typer.Argument(help="Files, folders or patterns: pictures, or wav files.")],
    runtime: Annotated[str, typer.Option(help="auto, onnx or tflite.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Judge files with a bundle: a line a file, then a summary.

    Exit codes: 0 all judged, 2 wrong arguments or bundle, 3 some files could not be read.
    """
    from edge.commands import infer as command

    _exit(lambda: command.run(bundle, paths, runtime=runtime, as_json=as_json))


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    drain: Annotated[
        bool, typer.Option("--drain", help="End by itself when every source is exhausted and everything is sent.")
    ] = False,
    live: Annotated[
        bool | None,
        typer.Option(
            "--live/--no-live",
            help="Show what is understood as it happens; without a terminal a line a result. "
            "If not said: where a station listens.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the device until SIGTERM or Ctrl-C."""
    gc.disable()  # until all is loaded: nothing of it is garbage, and looking takes a seventh of the start
    from edge.commands import run as command

    _exit(lambda: command.run(config, drain=drain, live=live))


@app.command()
def check(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Look at all that a device needs before it runs; say what to do about each thing that is not ok.

    Exit codes: 0 all ok, 1 something is not.
    """
    from edge.commands import check as command

    _exit(lambda: command.run(config))


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it live until Ctrl-C.")] = False,
) -> None:
    """Say how the device does, also while it runs. Exit codes: 0 fresh, 1 stale or never started."""
    if watch:
        from edge.commands import watch as live

        _exit(lambda: live.run(config))
    from edge.commands import status as command

    _exit(lambda: command.run(config, as_json=as_json))


@app.command()
def mode(
    station: Annotated[str, typer.Argument(help="The station, as the device's TOML file names it.")],
    wanted: Annotated[
        str | None, typer.Argument(metavar="[MODE]", help="human, shadow, assist, partial, full.", show_default=False)
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    give_back: Annotated[
        bool, typer.Option("--give-back", help="Let the control plane or the TOML file say it again.")
    ] = False,
) -> None:
    """Switch a station's degree of automation at the device; it holds until it is given back. Without MODE: say it.

    Exit codes: 0 in force from the next part on, 1 kept for when the daemon runs, 2 wrong arguments.
    """
    from edge.commands import switch as command

    _exit(lambda: command.run_mode(config, station, wanted, give_back=give_back))


@app.command()
def acknowledge(
    station: Annotated[str, typer.Argument(help="The station whose line is stopped.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Let a line run again that was stopped after too many rejects in a row.

    Exit codes: 0 it runs, or was not stopped; 1 kept for when the daemon runs, 2 wrong arguments.
    """
    from edge.commands import switch as command

    _exit(lambda: command.run_acknowledge(config, station))


@app.command()
def log(
    config: ConfigOption = DEFAULT_CONFIG,
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=100_000, help="How many decisions.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Print the last decisions from the device's own record."""
    from edge.commands import log as command

    _exit(lambda: command.run(config, last=last, as_json=as_json))


@app.command()
def replay(
    decision: Annotated[int, typer.Argument(help="Number of the decision, as `log` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Judge a decision's kept input again and compare the scores.

    Exit codes: 0 the same, 1 different, 4 cannot be replayed (the answer says why).
    """
    from edge.commands import replay as command

    _exit(lambda: command.run(config, decision, as_json=as_json))


@app.command()
def forget(
    decisions: Annotated[list[int] | None, typer.Argument(help="Numbers of decisions, as `log` shows them.")] = None,
    before: Annotated[
        str | None, typer.Option(help="Everything before this time, for example 2026-05-31, or now.")
    ] = None,
    station: Annotated[str | None, typer.Option(help="With --before: only of this station.")] = None,
    why: Annotated[str, typer.Option(help="Why, for the proof.")] = "asked for",
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Erase kept pictures, sounds and texts for good, here and at the control plane; an event stays as the proof.

    Exit codes: 0 erased, 1 erased but still in a log that another program reads from, 2 wrong arguments.
    """
    from edge.commands import forget as command

    _exit(lambda: command.run(config, before=before, decisions=decisions or [], station=station, why=why))


def main() -> None:
    """Entry point of the console script."""
    app()


def _exit(work: Callable[[], int]) -> None:
    try:
        code = work()
    except LinesideError as error:
        print(f"lineside-edge: {error.for_people()}", file=sys.stderr)
        code = WRONG_USE
    except BrokenPipeError:
        code = 0
    raise typer.Exit(code)


if __name__ == "__main__":
    main()
