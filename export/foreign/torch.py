"""Turns a program saved by `torch.export.save` (.pt2) into ONNX; needs torch.

Rules:
- The program's own exporter does the work; nothing is traced again with other inputs.
"""

import logging
import tempfile
import warnings
from pathlib import Path

import onnx

from edge.errors import ConfigError, ModelError


def onnx_of(path: Path) -> onnx.ModelProto:
    """Return a saved program as float ONNX.

    Args:
        path: written by `torch.export.save`. It is loaded with torch, so it must come from somebody you trust.

    Raises:
        ConfigError: torch or onnxscript is not installed.
        ModelError: it is no such file, or torch cannot write it as ONNX.
    """
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it and says so late
        import torch
    except ImportError as error:
        raise ConfigError(
            f".pt2 files need torch and onnxscript: {error}",
            hint="pip install torch onnxscript, or export to ONNX yourself",
        ) from error
    try:
        program = torch.export.load(path)
    except Exception as error:  # torch raises whatever its archive reader meets
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(
            f"{path.name}: cannot be read by torch {torch.__version__}: {first}",
            hint="expected a file written by torch.export.save; for TorchScript or weights use torch.onnx.export",
        ) from error
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it lists what else could be installed
        target = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(program, (), target, dynamo=True, external_data=False, verbose=False)
        except Exception as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise ModelError(
                f"{path.name}: torch cannot write it as ONNX: {first}", hint="export it to ONNX where it was made"
            ) from error
        model: onnx.ModelProto = onnx.load(str(target))
        return model
