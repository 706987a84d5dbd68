"""Quantizes a float ONNX model from elsewhere, with the calibration data setting the ranges.

Rules:
- The same quantizer as for models of our own; its input keeps the scale of the float model's, and devices turn bytes
  into it by a table, so nothing is put in front of the network.
- TFLite is written beside it where every operator can be written exactly, else ONNX alone, and that is said.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import LinesideError, ModelError
from edge.preprocess import to_model
from edge.wire.manifest import ModelFile, TensorSpec
from export.foreign.model import Foreign
from export.foreign.onnx import channels_first
from export.quantize import Quantized, distance, quantize

_COMPARED = 512


def to_int8(
    foreign: Foreign, ranges: NDArray[Any], values: NDArray[Any], notes: list[str]
) -> tuple[list[tuple[bytes, ModelFile]], dict[str, Any]]:
    """Return the int8 files with their entries, and how far they are from the float model.

    Args:
        foreign: with `float_onnx`.
        ranges: (n, …) preprocessed values that set the ranges.
        values: (n, …) preprocessed values on which the two are compared.
        notes: takes what a user should know.

    Raises:
        ModelError: the quantizer does not take the model.
    """
    assert foreign.float_onnx is not None
    network = channels_first(foreign.float_onnx, foreign, values.shape[1:])
    as_float = _real(foreign.input, ranges)
    try:
        quantized = quantize(network, as_float)
    except LinesideError:
        raise
    except Exception as error:  # the quantizer and its shape inference raise many kinds
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"the quantizer does not take this model: {first}", hint="leave --quantize out to ship it in float"
        ) from error
    apart = distance(network, quantized, _real(foreign.input, values[:_COMPARED]))
    models = [(quantized.shipped, _with_input(quantized.spec, foreign))]
    tflite = _tflite(quantized, notes)
    if tflite is not None:
        models.append((tflite[0], _with_input(tflite[1], foreign)))
    return models, {"quantization": {k: round(v, 5) for k, v in asdict(apart).items() if isinstance(v, int | float)}}


def _real(tensor: TensorSpec, values: NDArray[Any]) -> NDArray[np.float32]:
    """Return values as the float model takes them, channels last."""
    plain = tensor.model_copy(update={"layout": "channels_last", "shape": [1, *values.shape[1:]], "dtype": "float32"})
    return np.concatenate([np.asarray(to_model(value[None], plain), np.float32) for value in values])


def _with_input(spec: ModelFile, foreign: Foreign) -> ModelFile:
    """Say how bytes become the input, and what the output gives."""
    taken = spec.input.model_copy(update={"mean": foreign.input.mean, "std": foreign.input.std})
    given = spec.output.model_copy(update={"values": foreign.output.values})
    return spec.model_copy(update={"input": taken, "output": given})


def _tflite(quantized: Quantized, notes: list[str]) -> tuple[bytes, ModelFile] | None:
    from export.tflite import write_tflite

    try:
        content, spec = write_tflite(quantized)
        notes.append("int8 ONNX and TFLite from one quantization")
        return content, spec
    except Exception as error:  # noqa: BLE001 - a graph that others wrote may trip the writer anywhere
        notes.append(f"ONNX only: TFLite cannot be written exactly ({str(error).splitlines()[0]})")
        return None
