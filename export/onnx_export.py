"""Turns a trained torch module into a float ONNX graph; the only file of the package that needs torch.

Rules:
- The module takes (1, channels, height, width) float32 and gives (1, labels) float32 logits.
- Nothing of the machine it was made on stays in the file: no paths, no source lines, no producer's notes.
"""

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    import torch

INPUT = "input"
OUTPUT = "logits"
_OPSET = 17
"""Oldest opset with all operators we write, so that every onnxruntime that we support reads it."""


def float_onnx(module: "torch.nn.Module", shape: tuple[int, int, int]) -> onnx.ModelProto:
    """Return the module as float ONNX with batch 1, batch normalisation folded in.

    Args:
        module: the trained network; it is put into evaluation mode.
        shape: (channels, height, width) of one input.
    """
    import torch

    example = torch.zeros(1, *shape)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        path = Path(folder) / "float.onnx"
        # The tracing exporter is announced as the old one; it is quick and needs no further package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval().cpu(),
            (example,),
            path,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
        return stripped(onnx.load(str(path)))


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
