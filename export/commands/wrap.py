"""`lineside-export wrap`: brings a model from elsewhere in as a bundle."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from export.commands.shared import print_json, said_plainly

_SOUND = "Sound: log_mel, mfcc, waveform, or mlperf-tiny (its 49 × 10 MFCC)."

_Model = Annotated[Path, typer.Argument(help="A .onnx or .tflite file, or .pt2 from torch.export.save (needs torch).")]
_Labels = Annotated[str, typer.Option(help="A file with one label a line (or JSON), or a,b,c; in the outputs' order.")]
_Calibration = Annotated[
    Path, typer.Option(help="Folder of examples: class folders named like labels prove thresholds; others do not.")
]
_Scale = Annotated[
    str | None,
    typer.Option(help="Float pictures are (byte × scale − mean) / std; 1/255 if only mean and std are given."),
]
_Layout = Annotated[str | None, typer.Option(help="channels_first or channels_last, where the file is unclear.")]
_Values = Annotated[
    str | None,
    typer.Option(help="What the output gives, if the file does not show it: logits, probabilities, sigmoids."),
]
_Sound = Annotated[list[str] | None, typer.Option(help="A number of the sound features: hop_ms=20. Repeatable.")]
_Group = Annotated[str | None, typer.Option(help="Pattern over file names: what it matches names the part or speaker.")]
_AcceptMin = Annotated[float | None, typer.Option(help="Threshold for examples without labels; no guarantee.")]


def wrap(
    model: _Model,
    labels: _Labels,
    calibration: _Calibration,
    name: Annotated[str | None, typer.Option(help="Name of the bundle; that of the file if not given.")] = None,
    version: Annotated[str, typer.Option(help="Version of the bundle.")] = "1.0.0",
    task: Annotated[str | None, typer.Option(help="inspect or keyword; inspect if a label is called good.")] = None,
    good: Annotated[str | None, typer.Option(help="Inspection: the label of good parts.")] = None,
    quantize: Annotated[bool, typer.Option("--quantize", help="Make a float ONNX model an int8 one.")] = False,
    scale: _Scale = None,
    mean: Annotated[str | None, typer.Option(help="One number, or one per channel: 0.485,0.456,0.406.")] = None,
    std: Annotated[str | None, typer.Option(help="One number, or one per channel: 0.229,0.224,0.225.")] = None,
    color: Annotated[str, typer.Option(help="Order of colours that the model was trained on: rgb or bgr.")] = "rgb",
    resize: Annotated[str, typer.Option(help="How pictures are fitted: stretch or letterbox.")] = "stretch",
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT, where the file leaves it open.")] = None,
    layout: _Layout = None,
    output: Annotated[str | None, typer.Option(help="Which of several outputs gives the labels.")] = None,
    values: _Values = None,
    features: Annotated[str | None, typer.Option(help=_SOUND)] = None,
    sound: _Sound = None,
    group: _Group = None,
    alpha: Annotated[float, typer.Option(help="At most this share of what is decided alone is wrong.")] = 0.02,
    delta: Annotated[float, typer.Option(help="Probability that the bound does not hold.")] = 0.05,
    accept_min: _AcceptMin = None,
    out: Annotated[Path, typer.Option(help="Folder that the bundle is written to.")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Bring a model from elsewhere in: read what it takes and gives, calibrate it on examples, and pack it.

    \b
    lineside-export wrap mobilenet.tflite --labels imagenet.txt --calibration pictures/
    lineside-export wrap defects.onnx --labels ok,scratch --good ok --calibration parts/ --scale 1/255 --quantize
    lineside-export wrap kws.tflite --labels words.txt --calibration words/ --features mlperf-tiny --group '^[^_]+'
    """
    with said_plainly():
        from export.wrap import wrap as run

        wish = _wish(**{key: value for key, value in locals().items() if key not in ("out", "as_json", "run")})
        done = run(wish, out / f"{wish.name}-{wish.version}.lsb", say=lambda line: typer.echo(line, err=True))
    if as_json:
        ref, policy = done.report.ref.model_dump(), done.report.policy.model_dump(exclude_none=True)
        print_json({"bundle": str(done.report.path), "ref": ref, "task": done.task, "labelled": done.labelled,
                    "policy": policy, "figures": done.report.figures, "notes": done.notes})  # fmt: skip
        return
    for line in _lines(done):
        typer.echo(line)


def _wish(**given: Any) -> Any:
    """Return what the command's words mean."""
    from edge.errors import ConfigError
    from export.foreign.labels import read_labels
    from export.foreign.model import Asked
    from export.foreign.sounds import sound_input
    from export.wrap import Wish

    for option, choices in _CHOICES.items():
        if given[option] is not None and given[option] not in choices:
            raise ConfigError(f"--{option} {given[option]}: expected {' or '.join(choices)}")
    for option in ("alpha", "delta"):
        if not 0 < given[option] < 1:
            raise ConfigError(f"--{option} {given[option]:g}: expected a number between 0 and 1")
    if re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", given["version"]) is None:
        raise ConfigError(f"--version {given['version']}: expected three numbers, for example 1.0.0")
    if given["sound"] and given["features"] is None:
        raise ConfigError("--sound changes numbers of --features, which is missing", hint=_SOUND)
    scale = _numbers("scale", given["scale"])
    return Wish(
        model=given["model"],
        labels=read_labels(given["labels"]),
        data=given["calibration"],
        name=_name(given["name"] or given["model"].stem, asked=given["name"] is not None),
        version=given["version"],
        task=given["task"],
        good=given["good"],
        asked=Asked(given["output"], _size(given["size"]), given["layout"], given["values"]),
        sound=None if given["features"] is None else sound_input(given["features"], given["sound"] or []),
        color=given["color"],
        resize=given["resize"],
        scale=None if scale is None else scale[0],
        mean=_numbers("mean", given["mean"]),
        std=_numbers("std", given["std"]),
        group=given["group"],
        quantize=given["quantize"],
        accept_min=given["accept_min"],
        alpha=given["alpha"],
        delta=given["delta"],
    )


_CHOICES = {
    "task": ("inspect", "keyword"),
    "color": ("rgb", "bgr"),
    "resize": ("stretch", "letterbox"),
    "layout": ("channels_first", "channels_last"),
    "values": ("logits", "probabilities", "sigmoids"),
}


def _numbers(option: str, text: str | None) -> list[float] | None:
    from edge.errors import ConfigError

    if text is None:
        return None
    try:
        return [float(Fraction(part.strip())) if "/" in part else float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(
            f"--{option} {text}: expected a number, 1/255, or numbers with commas between them"
        ) from error


def _size(text: str | None) -> tuple[int, int] | None:
    from edge.errors import ConfigError

    if text is None:
        return None
    width, _, height = text.lower().replace("×", "x").partition("x")
    if not width.isdigit() or not (height or width).isdigit():
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT in pixels, for example 224x224")
    return int(width), int(height or width)


def _name(text: str, *, asked: bool) -> str:
    """Return a name that a bundle may have; one that was asked for is not changed."""
    from pydantic import TypeAdapter, ValidationError

    from edge.errors import ConfigError
    from edge.wire.base import Name

    name = text if asked else re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:48] or "model"
    try:
        return TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ConfigError(f"--name {name}: {error.errors()[0]['msg']}") from error


def _lines(done: Any) -> list[str]:
    from export.promise import thresholds_in_words

    report = done.report
    guarantee = report.policy.guarantee
    heldout = report.figures.get("heldout", {})
    lines = [f"{report.path}: {report.ref.size_bytes} bytes, digest {report.ref.digest}"]
    lines += [f"  {note}" for note in done.notes]
    if heldout:
        lines.append(
            f"  accuracy {heldout['accuracy']:.1%} on {heldout['count']} examples, "
            f"{heldout['coverage']:.0%} decided alone"
        )
    if "quantization" in report.figures:
        apart = report.figures["quantization"]
        lines.append(f"  int8 agrees with float on {apart['agreement']:.1%} of {apart['count']:.0f} examples")
    lines.append(f"  thresholds: {thresholds_in_words(report.policy)}")
    if guarantee:
        lines.append(f"  guarantee: {guarantee.note}")
    return [*lines, "  try it: lineside-edge infer " + f"{report.path} FILES"]
