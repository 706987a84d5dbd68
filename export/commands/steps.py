"""`lineside-export quantize`, `calibrate`, `audit`, `pack`: each step of fit alone, on files."""

from pathlib import Path
from typing import Annotated

import typer

from export.commands.shared import NO, fail, print_json, said_plainly

Data = Annotated[Path, typer.Argument(help="A folder with a folder per class, as for fit.")]
Good = Annotated[str | None, typer.Option(help="The class of good parts, if it is not called good.")]
Group = Annotated[str | None, typer.Option(help="Pattern over file names whose groups name the part.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print as JSON.")]


def quantize(
    model: Annotated[Path, typer.Argument(help="A float ONNX file: (1, channels, height, width) in, logits out.")],
    calibration: Annotated[
        Path, typer.Option(help="Pictures that set the ranges (a folder), or preprocessed values (.npy, n first).")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for model.onnx, model.tflite and model.json.", metavar="DIR")
    ] = Path(),
    resize: Annotated[str, typer.Option(help="How pictures are brought to size: stretch or letterbox.")] = "stretch",
    count: Annotated[int, typer.Option(help="How many examples set the ranges.")] = 256,
    as_json: AsJson = False,
) -> None:
    """Make a float network an int8 one, in both formats, and say how far they are apart.

    Example: lineside-export quantize net.onnx --calibration photos --out int8
    """
    from export import steps

    with said_plainly():
        found = steps.quantize_file(model, calibration, out, resize=resize, count=count)
    if as_json:
        print_json(found)
        return
    apart = found["distance"]
    typer.echo(
        f"same label on {apart['agreement']:.2%} of {apart['count']} examples; logits off by {apart['logit_error']:.1%}"
    )
    for name, size in found["sizes_bytes"].items():
        typer.echo(f"  {name:<8}{size:>12,} bytes")
    if found["refused"]:
        typer.echo(f"  no TFLite file: {found['refused']}")


def calibrate(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="The new .lsb file.", metavar="FILE")],
    version: Annotated[str, typer.Option(help="Version of the new bundle; a published one never changes.")],
    alpha: Annotated[float, typer.Option(help="Largest share of wrong among what it decides alone, each way.")] = 0.01,
    delta: Annotated[float, typer.Option(help="Probability that this promise does not hold.")] = 0.05,
    method: Annotated[str, typer.Option(help="auto, none, temperature, vector or isotonic.")] = "auto",
    good: Good = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Calibrate a bundle and choose its thresholds anew on labelled files that it was not trained on.

    Gate limits, drift reference and the notion of strangers come from these files as well: for a new site or camera.

    Example: lineside-export calibrate gear-1.0.0.lsb site2 --out gear-1.0.1.lsb --version 1.0.1 --group '^([0-9]+)_'
    """
    from export import steps

    with said_plainly():
        made = steps.calibrate_bundle(
            bundle, data, out, version=version, alpha=alpha, delta=delta, method=method, good=good, group=group
        )
    if as_json:
        print_json({"ref": made.ref.model_dump(), "policy": made.policy.model_dump(), "figures": made.figures})
        return
    guarantee = made.policy.guarantee
    typer.echo(f"{made.path}: {made.ref.size_bytes:,} bytes, digest {made.ref.digest}")
    if guarantee is not None:
        typer.echo(f"  decides {guarantee.coverage:.1%} of {guarantee.n} {guarantee.unit}s alone; {guarantee.note}")


def audit(
    bundle: Annotated[Path, typer.Argument(help="A .lsb file.")],
    data: Annotated[Path | None, typer.Argument(help="A folder with a folder per class, as for fit.")] = None,
    limits: Annotated[Path | None, typer.Option(help="Limits agreed beforehand, a TOML file.")] = None,
    against: Annotated[Path | None, typer.Option(help="The bundle in service, judged on the same files.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the bundle with this audit inside.", metavar="FILE")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Draw the bundle with this audit as a page.", metavar="PAGE")
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Write the scores, for `lineside-bench risk --scores FILE`.", metavar="FILE"),
    ] = None,
    judged: Annotated[
        Path | None,
        typer.Option(
            help="In place of DATA: what networks that never saw the examples made of them (a file with their "
            "probabilities, as --scores writes it), for a bundle that was trained on all there is.",
            metavar="FILE",
        ),
    ] = None,
    good: Good = None,
    group: Group = None,
    as_json: AsJson = False,
) -> None:
    """Judge labelled files with a bundle, as a device would, and hold the figures against limits. Exit code 1: failed.

    A bundle with the audit inside has another digest: audit before publishing. What limits look like stands in
    export/README.md. Without DATA only figures that the bundle itself records are held against their limits.

    Example: lineside-export audit gear-1.1.0.lsb photos --limits limits.toml --against gear-1.0.0.lsb
    """
    from export import steps

    with said_plainly():
        found = steps.audit_bundle(
            bundle,
            data,
            limits,
            against,
            out,
            html,
            good=good,
            group=group,
            kept_scores=scores,
            judged_before=judged,
        )
    if as_json:
        print_json(found)
    else:
        for line in steps.audit_in_words(found):
            typer.echo(line)
    if found["audit"]["passed"] is False:
        raise typer.Exit(NO)


def pack(
    folder: Annotated[
        Path, typer.Argument(help="manifest.json with the files that it names; unzip a .lsb to get one.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The .lsb file; NAME-VERSION.lsb if not given.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Pack a folder into a bundle: digests are computed, everything is checked, the same files give the same bytes.

    Example: lineside-export pack gear --out gear-1.0.1.lsb
    """
    from export import steps

    with said_plainly():
        path, ref = steps.pack_folder(folder, out)
    if not path.exists():
        fail(f"{path} was not written")
    if as_json:
        print_json({"path": str(path), "ref": ref.model_dump()})
        return
    typer.echo(f"{path}: {ref.size_bytes:,} bytes, digest {ref.digest}")
