"""Models from elsewhere: what their files say about themselves, and how they become files that a device runs.

Rules:
- `read` looks at the file's content, not only at its name; what cannot be known from it is asked for.
- A file that does not fit is refused with what was expected, what it is, and what to do.
"""

from pathlib import Path

from edge.errors import ConfigError, ModelError
from export.foreign.model import Asked, Foreign

__all__ = ["Asked", "Foreign", "read"]

_SUFFIXES = (".onnx", ".tflite", ".lite", ".pt2")


def read(path: Path, asked: Asked) -> Foreign:
    """Return what a model file takes and gives.

    Args:
        path: an ONNX or TFLite file, or a program written by `torch.export.save`.
        asked: what the user said about it.

    Raises:
        ConfigError: something that the file does not say has to be said.
        ModelError: it cannot be run on a device.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file", hint="give a .onnx, .tflite or .pt2 file")
    if path.suffix.lower() not in _SUFFIXES:
        raise ModelError(
            f"{path.name}: expected a .onnx, .tflite or .pt2 file, got {path.suffix or 'no suffix'}",
            hint="export it: torch.onnx.export, torch.export.save, tf2onnx or the TFLite converter",
        )
    if path.suffix.lower() in (".tflite", ".lite"):
        from export.foreign.tflite import read_tflite

        return read_tflite(path.read_bytes(), path.name, asked)
    from export.foreign.onnx import load_onnx, read_onnx

    if path.suffix.lower() == ".pt2":
        from export.foreign.torch import onnx_of

        return read_onnx(onnx_of(path), path.name, asked)
    return read_onnx(load_onnx(path), path.name, asked)
