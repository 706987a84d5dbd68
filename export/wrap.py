"""Brings a model from elsewhere in as a bundle: the steps behind `lineside-export wrap`.

read the file → what its input takes → calibration data → quantize if asked → calibrate, thresholds, golden → bundle

Rules:
- What the file says is never asked for; what it cannot say (the scale of float inputs, which sound features, which
  label is a good part) is never guessed.
- Probabilities are turned into logits by the device (log p); the temperature then works on them as on any logits.
- Without labelled examples nothing is accepted by itself, unless the user names a threshold, without guarantee.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.bundle import digest_of
from edge.errors import ConfigError, ModelError
from edge.preprocess import audio_shape
from edge.wire.manifest import (
    GOOD_LABEL,
    AudioInput,
    ImageInput,
    InspectPolicy,
    KeywordPolicy,
    ModelFile,
    Policy,
    TensorSpec,
)
from edge.wire.terms import Task
from export.build import BuildReport, bundle_files
from export.foreign import Asked, Foreign, read
from export.foreign.examples import Examples, only_sounds, read_examples
from export.foreign.labels import plain
from export.foreign.tolerance import golden_tolerance
from export.recipe import BuildData, Recipe
from export.thresholds import ACCEPT_NOTHING, DIVERT_NOTHING, PASS_NOTHING

_BYTE_SCALES = ((1 / 255, 0), (1 / 256, 0), (1.0, 0), (1 / 127.5, 128), (1 / 128, 128), (1 / 127, 128), (1 / 255, 128))
"""Scales and unsigned zero points at which picture bytes are the quantized values themselves."""
_RANGE_EXAMPLES = 256
_MEMORY_BYTES = 32 * 2**20
_SEED = 1


@dataclass(frozen=True)
class Wish:
    """What the user asked for."""

    model: Path
    labels: list[str]
    data: Path
    name: str
    version: str = "1.0.0"
    task: Task | None = None
    good: str | None = None
    """Label of a good part, where it is not called `good`."""
    asked: Asked = field(default_factory=Asked)
    sound: AudioInput | None = None
    color: Literal["rgb", "bgr"] = "rgb"
    resize: Literal["stretch", "letterbox"] = "stretch"
    scale: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    """Float inputs are (byte × scale − mean) / std."""
    group: str | None = None
    """Pattern over file names that says which belong to the same part or speaker."""
    quantize: bool = False
    accept_min: float | None = None
    """Threshold without guarantee, for data without labels."""
    alpha: float = 0.02
    delta: float = 0.05
    created_at: str | None = None


@dataclass(frozen=True)
class Wrapped:
    """The bundle, and what a user should know about how it came to be."""

    report: BuildReport
    notes: list[str]
    task: Task
    labelled: int
    """Examples with a label."""


def wrap(wish: Wish, out: Path, say: Callable[[str], None] = lambda _: None) -> Wrapped:
    """Write a bundle from a foreign model.

    Args:
        wish: what the user asked for.
        out: the `.lsb` file to write.
        say: takes lines about the progress.

    Raises:
        ConfigError: something has to be said, or contradicts the model.
        ModelError: the model does not run on devices.
    """
    say(f"reading {wish.model.name}")
    if wish.sound is None and only_sounds(wish.data):
        raise ConfigError(
            f"--calibration {wish.data} holds sounds: which features does the model take?",
            hint="say them: --features log_mel, mfcc or waveform with --sound name=value, or --features mlperf-tiny",
        )
    foreign = read(wish.model, replace(wish.asked, sound=wish.sound is not None))
    labels, task = _labels(wish, foreign)
    spec = _input(wish, foreign)
    foreign = replace(foreign, input=_scaled(wish, foreign, spec))
    say(f"reading {wish.data}")
    examples = read_examples(wish.data, spec, labels, good=wish.good, group=wish.group)
    notes = [*foreign.notes, *examples.notes]
    foreign = _as_seen(foreign, examples, wish)
    figures: dict[str, Any] = {}
    if wish.quantize:
        say("quantizing")
        models, figures = _quantized(foreign, examples, notes)
    else:
        models = [_as_it_is(foreign, examples)]
    policy = None if examples.labelled else _unproven(wish, task, notes)
    recipe = _recipe(wish, task, spec, labels, examples, foreign, models)
    data = BuildData(
        quantize=examples.values[:0],
        heldout=examples.heldout(),
        reference=examples.raw,
    )
    say("calibrating and choosing thresholds")
    try:
        report = bundle_files(recipe, models, data, out, policy=policy, figures=figures)
    except ValueError as error:
        raise ConfigError(f"{wish.data}: {error}", hint="give more examples, or a --group that fits") from error
    return Wrapped(report, notes, task, int(np.sum(examples.labels >= 0)))


def _labels(wish: Wish, foreign: Foreign) -> tuple[list[str], Task]:
    """Return the labels as the bundle has them, and the task."""
    labels = list(wish.labels)
    if len(labels) != foreign.labels:
        more = f"add one in front for the background: {foreign.labels} = {len(labels)} + 1"
        hint = more if foreign.labels == len(labels) + 1 else "one name per output, in the order of the outputs"
        raise ConfigError(f"--labels: expected {foreign.labels} names, got {len(labels)}", hint=hint)
    if wish.good is not None:
        at = next((index for index, label in enumerate(labels) if plain(label) == plain(wish.good)), None)
        if at is None:
            raise ConfigError(f"--good {wish.good}: there is no such label", hint=f"there are: {_few(labels)}")
        if GOOD_LABEL in labels and labels[at] != GOOD_LABEL:
            raise ConfigError(f"--good {wish.good}: another label is called {GOOD_LABEL!r}")
        labels[at] = GOOD_LABEL
    task = wish.task or ("inspect" if GOOD_LABEL in labels else "keyword")
    if task == "inspect" and GOOD_LABEL not in labels:
        raise ConfigError(
            f"inspection needs the label of good parts, got {_few(labels)}", hint="say which one it is: --good LABEL"
        )
    return labels, task


def _input(wish: Wish, foreign: Foreign) -> AudioInput | ImageInput:
    """Return how a picture or sound becomes values, checked against the model's input."""
    if wish.sound is not None:
        if _long(audio_shape(wish.sound)) != _long(foreign.input.shape):
            raise ConfigError(
                f"the sound features have shape {list(audio_shape(wish.sound))}, the model takes {foreign.input.shape}",
                hint="change them with --features and --sound name=value: window_s, hop_ms, mel_bands, coefficients …",
            )
        return wish.sound
    assert foreign.picture is not None
    height, width, channels = foreign.picture
    if min(height, width) < 8:
        raise ModelError(
            f"input {foreign.input.name!r}: expected a picture of at least 8 × 8, got {width} × {height}",
            hint="for a model of sound add --features log_mel, mfcc, waveform or mlperf-tiny",
        )
    color = "gray" if channels == 1 else wish.color
    return ImageInput(width=width, height=height, color=color, resize=wish.resize)


def _long(shape: Any) -> list[int]:
    return [int(size) for size in shape if size != 1]


def _scaled(wish: Wish, foreign: Foreign, spec: AudioInput | ImageInput) -> TensorSpec:
    """Return the input with mean and std in bytes, where bytes are not the values themselves."""
    given = any(item is not None for item in (wish.scale, wish.mean, wish.std))
    tensor = foreign.input
    if isinstance(spec, AudioInput):
        if given:
            raise ConfigError("--scale, --mean and --std are for pictures; for sound: --sound shift=… scale=…")
        return tensor
    if not given:
        if tensor.dtype != "float32" and _bytes_fit(tensor):
            # Raw bytes: what the file calls them does not matter to a device.
            return tensor
        what = "takes float32" if tensor.dtype == "float32" else f"is quantized with scale {tensor.scale:.6g}"
        raise ConfigError(
            f"input {tensor.name!r} {what}: how do bytes become its numbers?",
            hint="say it as (byte × scale − mean) / std: --scale 1/255 for 0…1; --scale 1/127.5 --mean 1 for −1…1; "
            "--scale 1 for bytes; --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 for most ImageNet models",
        )
    if tensor.dtype != "float32" and tensor.scale is None:
        raise ConfigError(
            f"--scale, --mean and --std: input {tensor.name!r} takes {tensor.dtype} as it comes",
            hint="leave them out: the model's own first step makes numbers of the bytes",
        )
    scale = 1 / 255 if wish.scale is None else wish.scale
    mean, std = wish.mean or [0.0], wish.std or [1.0]
    channels = 1 if spec.color == "gray" else 3
    for name, numbers in (("--mean", mean), ("--std", std)):
        if len(numbers) not in (1, channels):
            raise ConfigError(f"{name}: expected 1 or {channels} numbers, got {len(numbers)}")
    if wish.scale is None and max(map(abs, [*mean, *std])) > 8:
        raise ConfigError(
            "--mean and --std look like units of bytes, but bytes are scaled by 1/255 first",
            hint="add --scale 1",
        )
    if not scale > 0 or min(std) <= 0:
        raise ConfigError("--scale and --std: expected numbers above 0")
    count = max(len(mean), len(std))
    return tensor.model_copy(
        update={
            "mean": [round(number / scale, 9) for number in _times(mean, count)],
            "std": [round(number / scale, 9) for number in _times(std, count)],
        }
    )


def _times(numbers: list[float], count: int) -> list[float]:
    return numbers * count if len(numbers) == 1 else numbers


def _bytes_fit(tensor: TensorSpec) -> bool:
    if tensor.scale is None or tensor.zero_point is None:
        return True
    unsigned = tensor.zero_point + (128 if tensor.dtype == "int8" else 0)
    return any(abs(tensor.scale - scale) < 0.02 * scale and abs(unsigned - zero) <= 1 for scale, zero in _BYTE_SCALES)


def _as_seen(foreign: Foreign, examples: Examples, wish: Wish) -> Foreign:
    """Take an output that always adds up to one for what it is, where neither file nor user said so."""
    if wish.asked.values is not None or foreign.output.values != "logits" or not len(examples.values):
        return foreign
    answers = _answers(foreign, examples.values[:32])
    near = 0.05 if foreign.output.dtype != "float32" else 1e-3
    if answers.min() >= 0 and np.abs(answers.sum(1) - 1).max() < near:
        return replace(foreign, output=foreign.output.model_copy(update={"values": "probabilities"}))
    return foreign


def _answers(foreign: Foreign, values: NDArray[Any]) -> NDArray[np.float32]:
    from export.golden import outputs

    return outputs(foreign.content, _file(foreign, 1.0), values)


def _file(foreign: Foreign, tolerance: float) -> ModelFile:
    return ModelFile(
        file=f"model.{foreign.runtime}",
        runtime=foreign.runtime,
        precision=foreign.precision,
        input=foreign.input,
        output=foreign.output,
        golden_tolerance=tolerance,
    )


def _as_it_is(foreign: Foreign, examples: Examples) -> tuple[bytes, ModelFile]:
    answers = _answers(foreign, examples.values[:32])
    if not np.isfinite(answers).all():
        raise ModelError(
            f"output {foreign.output.name!r}: the model answers with numbers that are not finite",
            hint="check how bytes become its input: --scale, --mean, --std",
        )
    if not np.array_equal(answers[:4], _answers(foreign, examples.values[:4])):
        raise ModelError("the model answers differently to the same input", hint="export it in inference mode")
    return foreign.content, _file(foreign, golden_tolerance(foreign, answers))


def _quantized(
    foreign: Foreign, examples: Examples, notes: list[str]
) -> tuple[list[tuple[bytes, ModelFile]], dict[str, Any]]:
    """Return the int8 files of a float model, and how far they are from it."""
    from export.foreign.narrow import to_int8

    if foreign.float_onnx is None:
        raise ConfigError(
            f"--quantize: the {foreign.runtime} file is {foreign.precision} with {foreign.input.dtype} input",
            hint="only float ONNX (or .pt2) is quantized; leave --quantize out to take the file as it is",
        )
    order = np.random.default_rng(_SEED).permutation(len(examples.values))[:_RANGE_EXAMPLES]
    return to_int8(foreign, examples.values[np.sort(order)], examples.values, notes)


def _unproven(wish: Wish, task: Task, notes: list[str]) -> Policy:
    if task == "inspect":
        notes.append("no labelled examples: every part goes to a person, and nothing is calibrated")
        return InspectPolicy(pass_max=PASS_NOTHING, divert_min=DIVERT_NOTHING)
    if wish.accept_min is None:
        notes.append(
            "no labelled examples: everything goes to a person, and nothing is calibrated; or say --accept-min"
        )
        return KeywordPolicy(accept_min=ACCEPT_NOTHING)
    notes.append(f"no labelled examples: accepted from {wish.accept_min:g} on as you said, without any guarantee")
    return KeywordPolicy(accept_min=wish.accept_min)


def _recipe(
    wish: Wish,
    task: Task,
    spec: AudioInput | ImageInput,
    labels: list[str],
    examples: Examples,
    foreign: Foreign,
    models: list[tuple[bytes, ModelFile]],
) -> Recipe:
    changed = datetime.fromtimestamp(int(wish.model.stat().st_mtime), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lineage = {
        "source": wish.model.name,
        "source_digest": digest_of(wish.model.read_bytes()),
        "source_output": foreign.output.values,
        "changes": list(foreign.notes),
        "calibration_digest": examples.digest,
        "calibration_examples": len(examples.values),
        "quantized": wish.quantize,
    }
    return Recipe(
        name=wish.name,
        version=wish.version,
        task=task,
        input=spec,
        labels=labels,
        created_at=wish.created_at or changed,
        description=f"{wish.model.name}, brought in from elsewhere.",
        alpha_escape=wish.alpha,
        alpha_false_reject=wish.alpha,
        alpha_error=wish.alpha,
        delta=wish.delta,
        unit=examples.unit,
        guarantee_note="" if examples.grouped else "nobody said which examples belong together: each counts alone",
        prefer=models[0][1].runtime,
        memory_bytes=_MEMORY_BYTES + 2 * sum(len(content) for content, _ in models),
        lineage=lineage,
    )


def _few(labels: list[str]) -> str:
    return ", ".join(labels[:12]) + (f" … ({len(labels)})" if len(labels) > 12 else "")
