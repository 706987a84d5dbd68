"""`lineside-bench`: one command a question; each prints a table, or JSON lines with --json."""

from typing import Annotated

import typer

app = typer.Typer(
    name="lineside-bench",
    help="Measure Lineside: ratios within one run, so that a noisy machine does not lie.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines, for machines.")]


@app.command()
def overhead(
    as_json: AsJson = False,
    windows: Annotated[int, typer.Option(min=100, help="Windows measured for each way of running.")] = 3000,
) -> None:
    """Time that the pipeline adds around the network, inline and in a child process."""
    from benchmarks import overhead as benchmark

    benchmark.main(as_json=as_json, windows=windows)


@app.command()
def startup(as_json: AsJson = False) -> None:
    """Time from starting the daemon to its first decision, and its memory with the child's."""
    from benchmarks import startup as benchmark

    benchmark.main(as_json=as_json)


@app.command()
def gates(
    as_json: AsJson = False,
    runs: Annotated[int, typer.Option(min=50, help="Simulated rollouts for each rule.")] = 500,
) -> None:
    """Whether the gates of rollouts keep their stated error when looked at all the time, beside the usual rules."""
    from benchmarks import gates as benchmark

    benchmark.main(as_json=as_json, runs=runs)


@app.command("all")
def everything(as_json: AsJson = False) -> None:
    """Every benchmark, one after another."""
    overhead(as_json=as_json, windows=3000)
    startup(as_json=as_json)
    gates(as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
