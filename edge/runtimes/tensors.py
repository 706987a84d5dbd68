"""What every runtime checks about tensors, so that each says it in the same words: pure.

Rules:
- Nothing is converted in silence: a tensor of another shape or dtype is refused with expected and got.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile, TensorSpec

_LEAST_CHANCE = 1e-7
"""About what float32 can tell from certainty; the same for every engine, so that their logits stay comparable."""


def outputs_of(spec: "ModelFile") -> list["TensorSpec"]:
    """Return the outputs that a file must have, in their order: logits, then those extras that are declared."""
    return [spec.output, *extras_of(spec)]


def extras_of(spec: "ModelFile") -> list["TensorSpec"]:
    """Return the declared outputs behind the logits, in their order: features, heat map, text."""
    return [extra for extra in (spec.features, spec.heatmap, spec.text) if extra is not None]


def check_input(tensor: NDArray[np.generic], shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
    """Refuse a tensor that the network does not take.

    Raises:
        ModelError: wrong shape or dtype.
    """
    if tensor.shape != shape or tensor.dtype != dtype:
        raise ModelError(
            f"input tensor: expected {dtype} of shape {shape}, got {tensor.dtype} of shape {tensor.shape}",
            hint="the preprocessing in the manifest does not fit its model",
        )


def check_count(inputs: int, outputs: int, wanted: Sequence["TensorSpec"]) -> None:
    """Refuse a file with another number of inputs or outputs than the manifest lists.

    Raises:
        ModelError: not one input, or not these outputs.
    """
    if inputs != 1 or outputs != len(wanted):
        number = {1: "one output", 2: "two outputs"}.get(len(wanted), f"{len(wanted)} outputs")
        raise ModelError(f"model file: expected one input and {number}, got {inputs} and {outputs}")


def check_declared(
    role: str, spec: "TensorSpec", name: str, shape: Sequence[object], dtype: str, *, any_name: bool = False
) -> None:
    """Refuse a file whose tensor is not the one that the manifest lists.

    Args:
        role: `input` or `output`, for the error's words.
        spec: what the manifest says.
        name, shape, dtype: what the file says; an entry of `shape` that is not a number stands for any size.
        any_name: whether the runtime finds tensors by position, so that their names do not matter.

    Raises:
        ModelError: name, shape or dtype differ.
    """
    fits = len(shape) == len(spec.shape) and all(
        got == want or not isinstance(got, int) for got, want in zip(shape, spec.shape, strict=True)
    )
    if (name != spec.name and not any_name) or not fits or dtype != spec.dtype:
        raise ModelError(
            f"{role} of the model file: expected {spec.name!r}, {spec.dtype}, shape {spec.shape}; "
            f"got {name!r}, {dtype}, shape {list(shape)}",
            hint="the manifest describes another file than the one in the bundle",
        )


def joined(outputs: Sequence[NDArray[np.generic]], specs: Sequence["TensorSpec"]) -> NDArray[np.float32]:
    """Return the outputs one after another as real numbers, float32 of one axis.

    Raises:
        ModelError: as `real_numbers`.
    """
    return np.concatenate([_dequantized(values, spec) for values, spec in zip(outputs, specs, strict=True)])


def real_numbers(values: NDArray[np.generic], spec: "TensorSpec") -> NDArray[np.float32]:
    """Return an output tensor as real numbers, float32 of one axis.

    Raises:
        ModelError: another shape than declared (a file may leave sizes open until it runs), or a quantized output
            whose manifest has no scale and zero point.
    """
    numbers = _dequantized(values, spec)
    return np.array(numbers) if spec.dtype == "float32" else numbers


def golden_numbers(logits: NDArray[np.float32], spec: "TensorSpec") -> NDArray[np.float64]:
    """Return what two engines' answers are compared in: the numbers that the file gives, as their logits say them.

    One step of a probability near nothing is far in its logarithm, and means nothing.
    """
    exact = logits.astype(np.float64)
    if spec.values == "logits":
        return exact
    if spec.values == "sigmoids":
        return np.asarray(1 / (1 + np.exp(-exact)))
    powers = np.exp(exact - exact.max())
    return np.asarray(powers / powers.sum())


def _dequantized(values: NDArray[np.generic], spec: "TensorSpec") -> NDArray[np.float32]:
    """Return float32 of one axis; of a float tensor, the same memory."""
    if list(values.shape) != list(spec.shape):
        raise ModelError(f"output {spec.name!r}: expected shape {spec.shape}, got {list(values.shape)}")
    flat = values.reshape(-1)
    if spec.dtype == "float32":
        numbers = cast("NDArray[np.float32]", flat)  # checked when the file was opened
    elif spec.scale is None or spec.zero_point is None:
        raise ModelError(f"output {spec.name!r} is {spec.dtype}, but the manifest gives no scale and zero point")
    else:
        numbers = np.asarray((flat.astype(np.int32) - spec.zero_point) * np.float32(spec.scale), np.float32)
    return numbers if spec.values == "logits" else _logits_of(numbers, spec)


def _logits_of(chances: NDArray[np.float32], spec: "TensorSpec") -> NDArray[np.float32]:
    """Undo a softmax (up to a constant, which the next softmax takes out) or sigmoids.

    What was rounded to nothing is not impossible: all such labels together count as half of the smallest step.
    """
    least = np.float32(_LEAST_CHANCE if spec.scale is None else spec.scale / 2 / len(chances))
    some = np.clip(chances, least, 1 - least)
    if spec.values == "probabilities":
        return np.asarray(np.log(some), np.float32)
    odds = np.asarray(np.log(some) - np.log1p(-some), np.float32)
    return odds if len(odds) > 1 else np.array([0.0, odds[0]], np.float32)
