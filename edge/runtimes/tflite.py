"""Runs TFLite files with the LiteRT interpreter on the CPU, in this process.

Rules:
- Tensors go in and out by copy (`set_tensor`, `get_tensor`): a kept view makes the interpreter refuse to run.
- The engine's remarks at loading (`INFO: …`, which it cannot be told to keep to itself) do not reach stderr;
  everything else that is written there meanwhile does.
- Tensors are found by position, as the format has it: exactly one in; out the logits, then what else is declared.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.runtimes.tensors import check_count, check_declared, check_input, joined, outputs_of, real_numbers

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile, TensorSpec

_STDERR = 2
_SCALE_TOLERANCE = 1e-5
"""Relative: manifests carry scales as decimal text, files as float32."""


class TfliteSession:
    """A network in the LiteRT interpreter."""

    def __init__(self, model: bytes, spec: "ModelFile", *, threads: int = 1) -> None:
        self._interpreter: Interpreter | None = load_interpreter(model, threads)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._outputs = outputs_of(spec)
        check_count(len(inputs), len(outputs), self._outputs)
        _check("input", spec.input, inputs[0])
        for declared, detail in zip(self._outputs, outputs, strict=True):
            _check("output", declared, detail)
        self._in, self._out = inputs[0]["index"], [detail["index"] for detail in outputs]
        self._shape, self._dtype = tuple(spec.input.shape), np.dtype(spec.input.dtype)
        self.description = f"ai-edge-litert {version('ai-edge-litert')}"

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        if self._interpreter is None:
            raise ModelError("the session is closed")
        check_input(tensor, self._shape, self._dtype)
        try:
            self._interpreter.set_tensor(self._in, tensor)
            self._interpreter.invoke()
            outputs = [self._interpreter.get_tensor(index) for index in self._out]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"LiteRT failed: {error}") from error
        # One output has a way of its own: joining costs 10 µs right behind a network.
        return real_numbers(outputs[0], self._outputs[0]) if len(outputs) == 1 else joined(outputs, self._outputs)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._interpreter = None


def open_session(model: bytes, spec: "ModelFile", *, threads: int = 1) -> TfliteSession:
    """Open a session on the bytes of a TFLite file.

    Raises:
        ModelError: the file is damaged or not what `spec` says.
    """
    return TfliteSession(model, spec, threads=threads)


def load_interpreter(model: bytes, threads: int) -> Interpreter:
    """Return LiteRT's interpreter with the file loaded and its tensors allocated.

    Raises:
        ModelError: LiteRT does not take the file.
    """
    try:
        with _without_remarks():
            interpreter = Interpreter(model_content=model, num_threads=threads)
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"LiteRT does not take this model: {error}", hint="the file is damaged, or holds operators it does not know"
        ) from error
    return interpreter


@contextmanager
def _without_remarks() -> Iterator[None]:
    try:
        stderr = os.dup(_STDERR)
    except OSError:  # it is closed: there is nothing to keep clean
        yield
        return
    held = os.memfd_create("lineside-stderr", os.MFD_CLOEXEC)
    os.dup2(held, _STDERR)
    try:
        yield
    finally:
        os.dup2(stderr, _STDERR)
        os.close(stderr)
        with open(held, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.seek(0)
            said = [line for line in file if not line.startswith(b"INFO: ")]
        if said:
            os.write(_STDERR, b"".join(said))


def _check(role: str, spec: "TensorSpec", detail: dict[str, Any]) -> None:
    shape = [int(size) for size in detail["shape"]]
    check_declared(role, spec, detail["name"], shape, np.dtype(detail["dtype"]).name, any_name=True)
    if spec.dtype == "float32" or spec.scale is None:
        return
    scale, zero_point = detail["quantization"]
    if abs(scale - spec.scale) > _SCALE_TOLERANCE * abs(spec.scale) or zero_point != spec.zero_point:
        raise ModelError(
            f"{role} of the model file: expected scale {spec.scale} and zero point {spec.zero_point}, "
            f"got {scale} and {zero_point}"
        )
