"""`lineside-edge`: reads the arguments and hands them to `edge.commands`, turning errors into exit codes."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge.errors import LinesideError

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
) -> None:
    """Run the device until SIGTERM or Ctrl-C."""
    from edge.commands import run as command

    _exit(lambda: command.run(config, drain=drain))


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Say how the device does, also while it runs. Exit codes: 0 fresh, 1 stale or never started."""
    from edge.commands import status as command

    _exit(lambda: command.run(config, as_json=as_json))


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
