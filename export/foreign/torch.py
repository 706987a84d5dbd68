"""Turns a program saved by `torch.export.save` (.pt2) into ONNX; needs torch, and nothing beside it.

Rules:
- The program is traced once with the input that it was saved with, of an open batch one example.
- Other sizes that the program leaves open stay open, so that they are asked for and not guessed.
"""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import onnx

from edge.errors import ConfigError, ModelError

_OPSET = 17


def onnx_of(path: Path) -> onnx.ModelProto:
    """Return a saved program as float ONNX.

    Args:
        path: written by `torch.export.save`. It is loaded with torch, so it must come from somebody you trust.

    Raises:
        ConfigError: torch is not installed.
        ModelError: it is no such file, it takes several inputs, or torch cannot write it as ONNX.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError(
            f".pt2 files need torch: {error}", hint="pip install torch, or export to ONNX where it was made"
        ) from error
    try:
        logging.getLogger("torch.export").setLevel(logging.CRITICAL)  # it logs what is said here
        program = torch.export.load(path)
    except Exception as error:  # torch raises whatever its archive reader meets
        raise ModelError(
            f"{path.name}: cannot be read by torch {torch.__version__}",
            hint="expected a file written by torch.export.save; for TorchScript or weights use torch.onnx.export",
        ) from error
    taken = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(taken) != 1 or "val" not in taken[0].meta:
        raise ModelError(
            f"{path.name}: expected a program with one input, got {len(taken)}",
            hint="export a version that takes a whole window or picture at once",
        )
    shape = taken[0].meta["val"].shape
    try:
        return onnx.load_from_string(_traced(program, taken[0].name, shape, taken[0].meta["val"].dtype))
    except Exception as error:
        raise ModelError(
            f"{path.name}: torch cannot write it as ONNX: {_first_line(error)}",
            hint="save it with fixed sizes and batch 1, or export it to ONNX where it was made",
        ) from error


def _traced(program: Any, name: str, shape: Any, dtype: Any) -> bytes:
    """Return the program's ONNX file; sizes that are no numbers are open, an open batch is 1."""
    import torch

    class Fixed(torch.nn.Module):
        """The program in inference mode: what was exported cannot be switched, and the tracer tries to."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module()

        def train(self, _mode: bool = True) -> "Fixed":  # noqa: FBT001 - torch's own signature
            return self

        def forward(self, values: torch.Tensor) -> Any:
            return self.program(values)

    known = program.example_inputs[0][0].shape if program.example_inputs else [1] * len(shape)
    sizes = [size if isinstance(size, int) else int(known[at]) if at else 1 for at, size in enumerate(shape)]
    open_axes = {at: f"size_{at}" for at, size in enumerate(shape) if at and not isinstance(size, int)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it lists what else could be installed
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            Fixed(),
            (torch.zeros(sizes, dtype=dtype),),
            str(file),
            dynamo=False,
            opset_version=_OPSET,
            input_names=[name],
            dynamic_axes={name: open_axes} if open_axes else None,
        )
        return file.read_bytes()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
