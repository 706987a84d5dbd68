"""`lineside-bench`: one command a question; each prints a table, or JSON lines with --json."""

from pathlib import Path
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
    windows: Annotated[int, typer.Option(min=100, help="Windows measured in each process.")] = 600,
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
def shadow(as_json: AsJson = False) -> None:
    """What a candidate in the shadow costs the network that decides."""
    from benchmarks import shadow as benchmark

    benchmark.main(as_json=as_json)


@app.command()
def gates(
    as_json: AsJson = False,
    runs: Annotated[int, typer.Option(min=50, help="Simulated rollouts for each rule.")] = 2000,
) -> None:
    """Whether the gates of rollouts keep their stated error when looked at all the time, beside the usual rules."""
    from benchmarks import gates as benchmark

    benchmark.main(as_json=as_json, runs=runs)


@app.command()
def rollout(
    as_json: AsJson = False,
    devices: Annotated[int, typer.Option(min=50, max=1_000_000, help="Simulated devices.")] = 100_000,
) -> None:
    """How long the rule of rollouts takes over a large fleet, from the first look to the end, on a clock of its own."""
    from benchmarks import rollout as benchmark

    benchmark.main(as_json=as_json, devices=devices)


@app.command()
def drift(
    as_json: AsJson = False,
    stations: Annotated[int, typer.Option(min=20, help="Simulated stations in each world.")] = 200,
) -> None:
    """Whether the drift watch keeps its stated rate of false alarms, and how soon it sees a shift."""
    from benchmarks import drift as benchmark

    benchmark.main(as_json=as_json, stations=stations)


@app.command()
def rollback(
    as_json: AsJson = False,
    devices: Annotated[int, typer.Option(min=2, max=20_000, help="Simulated devices at the embedded broker.")] = 1000,
) -> None:
    """Time from failing evidence to the last device being back on its old version; how far apart devices switch."""
    from benchmarks import rollback as benchmark

    benchmark.main(as_json=as_json, devices=devices)


@app.command()
def risk(
    as_json: AsJson = False,
    scores: Annotated[
        list[Path] | None, typer.Option(help="Scores (.npz) that a recipe wrote; phone_glass on new parts if none.")
    ] = None,
    real: Annotated[
        bool, typer.Option("--real", help="Scores of real data, which stand beside the reference bundles.")
    ] = False,
    splits: Annotated[int, typer.Option(min=50, help="Random splits by unit, and by block.")] = 500,
    alpha: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            max=0.5,
            help="Share of wrong that is allowed; 0.01 and 0.02 if none, with --real 0.05 and 0.1 as well.",
        ),
    ] = None,
    delta: Annotated[float, typer.Option(min=0.001, max=0.5, help="Probability that a bound does not hold.")] = 0.05,
    parts: Annotated[int, typer.Option(min=50, help="Parts drawn for each light, where no scores are given.")] = 2400,
) -> None:
    """Whether bounds on wrong decisions hold as often as promised, beside the usual threshold of 0.9."""
    from benchmarks import risk as benchmark
    from edge.errors import LinesideError

    try:
        benchmark.main(
            as_json=as_json, files=scores or (), real=real, splits=splits, alphas=alpha, delta=delta, parts=parts
        )
    except LinesideError as error:
        typer.echo(error.for_people(), err=True)
        raise typer.Exit(2) from error


@app.command()
def voice(
    data: Annotated[Path, typer.Option(help="Folder with meeting-vad, spoken-digits and noise.")],
    as_json: AsJson = False,
) -> None:
    """How well speech is found in meetings and in noise, and what listening costs."""
    from benchmarks import voice as benchmark

    benchmark.main(data, as_json=as_json)


@app.command()
def recognise(
    data: Annotated[Path, typer.Option(help="Folder with sentences.")],
    as_json: AsJson = False,
    threads: Annotated[int, typer.Option(min=1, max=16, help="Threads of the recogniser.")] = 2,
) -> None:
    """Word error rate and time of the recognisers, with and without the voice front end."""
    from benchmarks import recognise as benchmark
    from edge.errors import LinesideError

    try:
        benchmark.main(data, as_json=as_json, threads=threads)
    except LinesideError as error:
        typer.echo(error.for_people(), err=True)
        raise typer.Exit(2) from error


@app.command()
def answer(
    speech: Annotated[Path, typer.Option(help="Folder of WAV files, an utterance each.")],
    phone: Annotated[Path | None, typer.Option(help="Bundle on the device; spoken_digits if none.")] = None,
    server: Annotated[Path | None, typer.Option(help="Bundle of the server; spoken_digits if none.")] = None,
    segmenter: Annotated[str, typer.Option(help="What finds speech: cascade, silero, webrtc, energy.")] = "cascade",
    hang_over_ms: Annotated[float, typer.Option(min=0, max=10_000, help="Silence that ends a segment.")] = 200.0,
    utterances: Annotated[int, typer.Option(min=1, max=5000, help="How many; each takes about two seconds.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Time from the end of speech to the result, on the device and from the prediction server."""
    from benchmarks import answer as benchmark
    from edge.errors import LinesideError

    digits = benchmark.DIGITS
    setting = benchmark.Setting(speech, phone or digits, server or digits, segmenter, hang_over_ms, utterances)
    try:
        benchmark.main(setting, as_json=as_json)
    except LinesideError as error:
        typer.echo(error.for_people(), err=True)
        raise typer.Exit(2) from error


@app.command()
def durability(
    folder: Annotated[Path | None, typer.Option(help="On the disk to measure; the temporary folder if none.")] = None,
    as_json: AsJson = False,
) -> None:
    """What it costs that a decision survives a power cut, with one, two and four stations."""
    from benchmarks import durability as benchmark

    benchmark.main(folder, as_json=as_json)


@app.command()
def delta(as_json: AsJson = False) -> None:
    """How much of a new version a device downloads that has another one."""
    from benchmarks import delta as benchmark

    benchmark.main(as_json=as_json)


@app.command()
def fleet(
    devices: Annotated[
        int, typer.Option(min=1, max=15_000, help="Simulated devices; also 100 and 1,000 if more.")
    ] = 5000,
    seconds: Annotated[float, typer.Option(min=1, help="How long each part is measured.")] = 60.0,
    database: Annotated[
        str | None, typer.Option(help="URL, or `postgresql` for a private server; SQLite if none.", show_default=False)
    ] = None,
    broker: Annotated[str, typer.Option(help="embedded, or mosquitto for a private one.")] = "embedded",
    as_json: AsJson = False,
) -> None:
    """What a device costs the control plane as the fleet grows, and how fast it stores."""
    from benchmarks import fleet as benchmark
    from benchmarks.servers import NotInstalledError

    try:
        question = benchmark.Question(devices=devices, seconds=seconds, database=database, broker=broker)
        benchmark.main(question, as_json=as_json)
    except NotInstalledError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from error


@app.command("all")
def everything(
    as_json: AsJson = False,
    data: Annotated[
        Path | None, typer.Option(help="Folder with meeting-vad, spoken-digits, noise, sentences: voice as well.")
    ] = None,
) -> None:
    """Every benchmark, one after another; those of speech need recordings."""
    overhead(as_json=as_json)
    startup(as_json=as_json)
    shadow(as_json=as_json)
    durability(as_json=as_json)
    delta(as_json=as_json)
    gates(as_json=as_json)
    risk(as_json=as_json)
    drift(as_json=as_json)
    if data is not None:
        voice(data, as_json=as_json)
        recognise(data, as_json=as_json)
        answer(data / "spoken-digits", as_json=as_json)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
