"""What every runtime checks about tensors, so that each says it in the same words: pure.

Rules:
- Nothing is converted in silence: a tensor of another shape or dtype is refused with expected and got.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.errors import ModelError

if TYPE_CHECKING:
    from edge.wire.manifest import TensorSpec


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


def to_logits(values: NDArray[np.generic], spec: "TensorSpec") -> NDArray[np.float32]:
    """Return an output tensor of shape (1, labels) as real numbers, float32 of shape (labels,).

    Raises:
        ModelError: another shape than declared (a file may leave sizes open until it runs), or a quantized output
            whose manifest has no scale and zero point.
    """
    if list(values.shape) != list(spec.shape):
        raise ModelError(f"output {spec.name!r}: expected shape {spec.shape}, got {list(values.shape)}")
    flat = values.reshape(-1)
    if spec.dtype == "float32":
        return np.array(flat, np.float32)
    if spec.scale is None or spec.zero_point is None:
        raise ModelError(f"output {spec.name!r} is {spec.dtype}, but the manifest gives no scale and zero point")
    return np.asarray((flat.astype(np.int32) - spec.zero_point) * np.float32(spec.scale), np.float32)
