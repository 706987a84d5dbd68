"""`lineside-export fit`: from a folder to a signed bundle."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from export.commands.shared import fail, print_json, said_plainly

if TYPE_CHECKING:
    from edge.wire.terms import Task
    from export.fit import Fitted
    from export.plan import Options
    from export.recipe import Precision, Runtime

_INTERRUPTED = 130


Data = Annotated[Path, typer.Argument(help="A folder with a folder per class: DATA/good/*.jpg, DATA/scratch/*.jpg …")]
Name = Annotated[str, typer.Option(help="Name of the model, for example ball_screw.")]
TaskName = Annotated[str, typer.Option(help="inspect (good or defective) or keyword (which of several).")]
VersionName = Annotated[str, typer.Option(help="Version of the bundle.")]
Profile = Annotated[
    str | None,
    typer.Option(help="The device it is meant for: rpi4, or rpi4=3.2 if it takes 3.2 times as long there as here."),
]
Alpha = Annotated[float, typer.Option(help="Largest share of wrong among what it decides alone, each way.")]
Delta = Annotated[float, typer.Option(help="Probability that this promise does not hold.")]
Out = Annotated[Path, typer.Option(help="Where bundle, report and runs.sqlite go.", metavar="DIR")]
Seed = Annotated[int, typer.Option(help="Of everything random; the same seed makes the same bundle.")]
Minutes = Annotated[float, typer.Option(help="About how long it may take on two cores.")]
Good = Annotated[str | None, typer.Option(help="The class of good parts, if it is not called good.")]
Group = Annotated[
    str | None, typer.Option(help="Pattern over file names: what its groups match names the part, so none is parted.")
]
Side = Annotated[int | None, typer.Option(help="About the network's input, pixels; larger sees finer marks.")]
Threads = Annotated[int, typer.Option(help="Threads for training; part of what makes the same bundle.")]
LimitsFile = Annotated[Path | None, typer.Option(help="Limits agreed beforehand, a TOML file; see `audit`.")]
Against = Annotated[Path | None, typer.Option(help="The bundle in service, for the audit.")]
Key = Annotated[Path | None, typer.Option(help="Private key to sign with; made in OUT/keys if not given.")]
Prefer = Annotated[str, typer.Option(help="The engine that devices prefer: onnx, tflite, or auto, which measures.")]
PrecisionName = Annotated[str, typer.Option("--precision", help="What ships: int8, float32, or auto, which measures.")]
DeviceThreads = Annotated[
    int, typer.Option(min=1, max=64, help="Threads of the engine on the device, budget.threads of its profile.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")]


def fit(
    data: Data,
    name: Name,
    task: TaskName = "inspect",
    version: VersionName = "1.0.0",
    profile: Profile = None,
    alpha: Alpha = 0.01,
    delta: Delta = 0.05,
    out: Out = Path(),
    seed: Seed = 1,
    minutes: Minutes = 12.0,
    good: Good = None,
    group: Group = None,
    side: Side = None,
    threads: Threads = 2,
    limits: LimitsFile = None,
    against: Against = None,
    key: Key = None,
    prefer: Prefer = "auto",
    precision: PrecisionName = "auto",
    device_threads: DeviceThreads = 1,
    as_json: AsJson = False,
) -> None:
    """Train on a folder and write a signed bundle with its report. Needs the extras export and train.

    It can be stopped and started again with the same command; then it goes on where it was.

    Example: lineside-export fit photos --name gearwheel --good ok --group '^([0-9]+)_'
    """
    _check(task, alpha, delta, name)
    _check_format(prefer, precision)
    from export.plan import Options

    options = Options(
        data=data,
        task=cast("Task", task),
        name=name,
        version=version,
        profile=profile,
        alpha=alpha,
        delta=delta,
        out=out,
        seed=seed,
        minutes=minutes,
        good=good,
        group=group,
        side=side,
        threads=threads,
        limits=limits,
        against=against,
        key=key,
        prefer=None if prefer == "auto" else cast("Runtime", prefer),
        precision=None if precision == "auto" else cast("Precision", precision),
        device_threads=device_threads,
    )
    _run(options, as_json=as_json)


def _check(task: str, alpha: float, delta: float, name: str) -> None:
    if task not in ("inspect", "keyword"):
        raise typer.BadParameter(f"expected inspect or keyword, got {task!r}", param_hint="--task")
    if not (0 < alpha < 0.5 and 0 < delta < 0.5):
        raise typer.BadParameter("expected alpha and delta between 0 and 0.5", param_hint="--alpha, --delta")
    if re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) is None:
        raise typer.BadParameter(f"expected small letters, digits, _ and -, got {name!r}", param_hint="--name")


def _check_format(prefer: str, precision: str) -> None:
    if prefer not in ("auto", "onnx", "tflite"):
        raise typer.BadParameter(f"expected auto, onnx or tflite, got {prefer!r}", param_hint="--prefer")
    if precision not in ("auto", "int8", "float32"):
        raise typer.BadParameter(f"expected auto, int8 or float32, got {precision!r}", param_hint="--precision")


def _run(options: "Options", *, as_json: bool) -> None:
    with said_plainly():
        made = _made(options)
    if as_json:
        print_json({"ref": made.ref.model_dump(), "path": str(made.path), "report": str(made.report), **made.facts})
        return
    for line in made.words:
        typer.echo(line)
    typer.echo(f"\nBundle      {made.path} ({made.ref.size_bytes:,} bytes, digest {made.ref.digest[:12]})")
    typer.echo(f"Report      {made.report}\nSignature   {made.signature}")
    typer.echo(f"Run         {made.run} in {options.out / 'runs.sqlite'}")
    typer.echo(f"\nNext        lineside-edge infer {made.path} {options.data}")


def _made(options: "Options") -> "Fitted":
    try:
        from export.fit import fit as run

        return run(options)
    except ModuleNotFoundError as error:
        fail(f"fit needs {error.name}\n  → pip install 'lineside[export,train]'")
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(_INTERRUPTED) from None
