"""What is known about a model from elsewhere, and the rules that are the same for every format: pure.

Rules:
- Shapes, dtypes and quantization come from the file; what a user says may fill gaps, never contradict the file.
- Pictures have four axes, or three of which one is 1 or 3 channels; everything else that comes alone is sound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge.errors import ConfigError, ModelError
from edge.wire.manifest import TensorSpec

if TYPE_CHECKING:
    import onnx

Layout = Literal["channels_last", "channels_first"]
Values = Literal["logits", "probabilities", "sigmoids"]
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Asked:
    """What a user said about a model; None for what the file has to say."""

    output: str | None = None
    """Name of the output to use."""
    size: tuple[int, int] | None = None
    """(width, height) in pixels, for files that leave it open."""
    layout: Layout | None = None
    values: Values | None = None
    """What the output gives."""
    sound: bool = False
    """Whether the model is for sound."""


@dataclass(frozen=True)
class Foreign:
    """A model that a device can run: one input, one output, no state."""

    runtime: Literal["onnx", "tflite"]
    content: bytes
    precision: Literal["int8", "float32"]
    input: TensorSpec
    """Without mean and std, which no file says."""
    output: TensorSpec
    picture: tuple[int, int, int] | None
    """(height, width, channels) of a picture; None for sound."""
    float_onnx: "onnx.ModelProto | None" = None
    """Channels first, for quantizing; None where the file is not float ONNX."""
    notes: list[str] = field(default_factory=list)
    """What was changed in the file, in words."""

    @property
    def labels(self) -> int:
        """How many labels the output is for."""
        count = math.prod(self.output.shape)
        return 2 if count == 1 and self.output.values == "sigmoids" else count


def picture_of(shape: Sequence[int], name: str, asked: Asked) -> tuple[Layout, tuple[int, int, int] | None]:
    """Return the layout of an input and its (height, width, channels), None for sound.

    Args:
        shape: with batch 1 and positive sizes.
        name: of the input, for messages.
        asked: what the user said.

    Raises:
        ConfigError: it could be either; `--layout` says which.
        ModelError: it is no picture.
    """
    if asked.sound:
        return "channels_last", None
    inner = list(shape[1:])
    if len(inner) == 2:
        return "channels_last", (inner[0], inner[1], 1)
    if len(inner) != 3:
        raise ModelError(
            f"input {name!r}: expected a picture, (1, height, width, channels) or (1, channels, height, width), "
            f"got {list(shape)}",
            hint="for a model of sound add --features log_mel, mfcc, waveform or mlperf-tiny",
        )
    first, last = inner[0] in _CHANNELS, inner[2] in _CHANNELS
    layout = asked.layout
    if layout is None and first != last:
        layout = "channels_first" if first else "channels_last"
    if layout is None:
        raise ConfigError(
            f"input {name!r} has shape {list(shape)}: expected 1 or 3 channels on one side",
            hint="say where the channels are: --layout channels_first or channels_last; "
            "for a model of sound add --features",
        )
    channels = inner[0] if layout == "channels_first" else inner[2]
    height, width = (inner[1], inner[2]) if layout == "channels_first" else (inner[0], inner[1])
    if channels not in _CHANNELS:
        raise ModelError(f"input {name!r}: expected 1 or 3 channels, got {channels} ({layout} of {list(shape)})")
    if asked.size is not None and asked.size != (width, height):
        raise ConfigError(f"--size {asked.size[0]}x{asked.size[1]}: the model's input is {width}x{height}")
    return layout, (height, width, channels)


def values_of(asked: Asked, found: Values) -> Values:
    """Return what the output gives: what the user says counts more than what the file looks like."""
    return asked.values or found


def check_labels(shape: Sequence[int], name: str, values: Values) -> None:
    """Refuse an output that is not one number per label.

    Raises:
        ModelError: expected and got.
    """
    count = math.prod(shape)
    long_axes = [size for size in shape if size != 1]
    if shape[:1] != [1] and shape[:1] != (1,):
        raise ModelError(
            f"output {name!r}: expected shape (1, labels), got {list(shape)}", hint="export the model with batch 1"
        )
    if len(long_axes) > 1:
        raise ModelError(
            f"output {name!r}: expected one number per label, got shape {list(shape)}",
            hint="detectors and segmenters are not classifiers; give the output of a classifier's head with --output",
        )
    if count == 1 and values != "sigmoids":
        raise ModelError(
            f"output {name!r}: expected at least two labels, got one number that is no sigmoid",
            hint="if it is the probability of the second of two labels, say --values sigmoids",
        )


def one_of(names: Sequence[str], what: str, asked: str | None) -> int:
    """Return which of several outputs is meant.

    Raises:
        ModelError: there are several and none was asked for, or there is none of that name.
    """
    if asked is None and len(names) == 1:
        return 0
    if asked is not None and asked in names:
        return list(names).index(asked)
    listed = ", ".join(names) or "none"
    if asked is None:
        raise ModelError(
            f"{what}: expected one output, got {len(names)}: {listed}",
            hint="say which one gives the labels: --output NAME",
        )
    raise ModelError(f"{what}: there is no output {asked!r}", hint=f"there are: {listed}")
