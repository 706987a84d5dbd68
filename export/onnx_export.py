"""Turns a trained torch module into a float ONNX graph; the only file of the package that needs torch.

Rules:
- The module takes (1, channels, height, width) float32 and gives (1, labels) float32 logits, or a dict with them
  under `logits` and further `features` (1, d) and `heatmap` (1, rows, columns; also with one channel).
- Nothing of the machine it was made on stays in the file: no paths, no source lines, no producer's notes.
"""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from edge.errors import ModelError

if TYPE_CHECKING:
    import torch

INPUT = "input"
OUTPUTS = ("logits", "features", "heatmap")
_OPSET = 17
"""Oldest opset with all operators we write, so that every onnxruntime that we support reads it."""


def float_onnx(module: "torch.nn.Module", shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return the module as float ONNX with batch 1, batch normalisation folded in.

    Args:
        module: the trained network; it is put into evaluation mode.
        shape: (channels, height, width) of one input.

    Raises:
        ModelError: it gives something else than logits, or a dict of the known outputs.
    """
    import torch

    example = torch.zeros(1, *shape)
    flat, names = _as_tuple(module.eval().cpu(), example)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "float.onnx"
        # The tracing exporter is announced as the old one; it is quick and needs no further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            flat,
            (example,),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=names,
        )
        return stripped(onnx.load(str(path)))


def _as_tuple(module: "torch.nn.Module", example: "torch.Tensor") -> tuple["torch.nn.Module", list[str]]:
    """Return a module that gives the outputs as a tuple in their order, and their names; tracing takes no dict."""
    import torch

    with torch.no_grad():
        given = module(example)
    if isinstance(given, torch.Tensor):
        return module, [OUTPUTS[0]]
    if not isinstance(given, dict) or OUTPUTS[0] not in given or not set(given) <= set(OUTPUTS):
        got = sorted(given) if isinstance(given, dict) else type(given).__name__
        raise ModelError(f"network: expected logits, or a dict with {', '.join(OUTPUTS)}, got {got}")
    names = [name for name in OUTPUTS if name in given]

    class Flat(torch.nn.Module):
        """The same network with its outputs in a row."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            answer = self.inner(values)
            maps = {name: answer[name].squeeze(1) if answer[name].ndim == 4 else answer[name] for name in names}
            return tuple(maps[name] for name in names)

    return Flat().eval(), names


def stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model without metadata that names the machine or the code it came from."""
    clean = onnx.ModelProto()
    clean.CopyFrom(model)
    clean.producer_name, clean.producer_version, clean.doc_string = "lineside-export", "", ""
    del clean.metadata_props[:]
    clean.graph.doc_string = ""
    for node in clean.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    _keep_used_operator_sets(clean)
    return clean


def _keep_used_operator_sets(model: onnx.ModelProto) -> None:
    """Drop operator sets that the optimizer lists without using them: devices refuse sets they do not know."""
    used = {node.domain for node in model.graph.node} | {""}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
