"""Runs ONNX files with ONNX Runtime on the CPU, in this process.

Rules:
- One thread unless asked otherwise, and threads never spin: a spinning pool burns a core at 50 pictures a second.
- The file is read for what it must not hold (foreign operators, data outside of the file) before the engine sees it.
- The engine never falls back to another provider by itself.
- Sums of products are exact whatever the processor: AVX2's own instruction (without VNNI) cuts u8 × s8 off at 16 bits,
  so that a bundle would be refused on one box and not on another. There, exact sums take 15–28 % more time.
"""

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.runtimes.onnx_file import refuse_unsafe
from edge.runtimes.tensors import check_count, check_declared, check_input, joined, outputs_of, real_numbers

if TYPE_CHECKING:
    from edge.wire.manifest import ModelFile

_DTYPES = {"tensor(uint8)": "uint8", "tensor(int8)": "int8", "tensor(float)": "float32"}
_EXACT_PRODUCTS = ("session.x64quantprecision", "1")
"""The engine's setting for it; without effect where the processor is exact by itself. Costs up to half of the time."""
_SHARED_WEIGHT = "Attempt to replace the existing tensor"
_FATAL_ONLY = 4
"""Log level of the engine: what goes wrong comes back as an exception, once, and not on stderr as well."""


class OnnxSession:
    """A network in ONNX Runtime."""

    def __init__(self, model: bytes, spec: "ModelFile", *, threads: int = 1) -> None:
        refuse_unsafe(model)
        self._session: ort.InferenceSession | None = _load(model, threads)
        self._input, self._outputs = spec.input.name, outputs_of(spec)
        self._names = [output.name for output in self._outputs]
        self._shape, self._dtype = tuple(spec.input.shape), np.dtype(spec.input.dtype)
        _check(self._session, spec)
        self.description = f"onnxruntime {ort.__version__}"

    def infer(self, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
        if self._session is None:
            raise ModelError("the session is closed")
        check_input(tensor, self._shape, self._dtype)
        try:
            outputs = self._session.run(self._names, {self._input: tensor})
        except Exception as error:  # the binding's exceptions have no base of their own
            raise ModelError(f"onnxruntime failed: {_first_line(error)}") from error
        # One output has a way of its own: joining costs 10 µs right behind a network.
        return real_numbers(outputs[0], self._outputs[0]) if len(outputs) == 1 else joined(outputs, self._outputs)

    def memory_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self._session = None


def open_session(model: bytes, spec: "ModelFile", *, threads: int = 1) -> OnnxSession:
    """Open a session on the bytes of an ONNX file.

    Raises:
        ModelError: the file is damaged, unsafe, or not what `spec` says.
    """
    return OnnxSession(model, spec, threads=threads)


def exact_session(model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    """Open a session whose products of bytes are exact on every processor.

    Where two layers share one weight the engine (1.32) trips over its own rewriting of it. Such a file is opened as it
    is: on processors that need the rewriting its golden outputs say whether that matters.

    Raises:
        Exception: as `InferenceSession`.
    """
    options.add_session_config_entry(*_EXACT_PRODUCTS)
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if _SHARED_WEIGHT not in str(error):
            raise
    options.add_session_config_entry(_EXACT_PRODUCTS[0], "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _load(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        session = exact_session(model, options)
    except Exception as error:  # the binding's exceptions have no base of their own
        raise ModelError(
            f"onnxruntime {ort.__version__} does not take this model: {_first_line(error)}",
            hint="the file is damaged, or was exported for a newer onnxruntime",
        ) from error
    session.disable_fallback()
    return session


def _check(session: ort.InferenceSession, spec: "ModelFile") -> None:
    inputs, outputs, wanted = session.get_inputs(), session.get_outputs(), outputs_of(spec)
    check_count(len(inputs), len(outputs), wanted)
    roles = [("input", spec.input, inputs[0])]
    roles += [("output", declared, node) for declared, node in zip(wanted, outputs, strict=True)]
    for role, declared, node in roles:
        check_declared(role, declared, node.name, node.shape, _DTYPES.get(node.type, node.type))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
