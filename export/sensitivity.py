"""Which layers of a network quantization hurts most: each is left float alone, and what that brings back is measured.

Rules:
- A group is a layer with weights and what takes its answer, up to the next layers with weights: between two quantized
  layers an activation is 8-bit whichever of them is blamed for it.
- Measured on examples that the ranges were not taken from, against the float network's logits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from export.quantize import layers, prepared, quantize
from export.recipe import Ranges
from export.run import OnnxRunner

_EXAMPLES = 64
"""Of both kinds: the mean error of logits settles soon, and a network has up to a hundred layers."""


@dataclass(frozen=True)
class Group:
    """Layers that are quantized or kept float together."""

    layer: str
    nodes: tuple[str, ...]
    """Every node that stays float then."""
    gain: float
    """Share of the logits' error that goes away with it; below zero it grows."""


def ranked(
    network: onnx.ModelProto,
    quantize_on: NDArray[np.generic],
    measured_on: NDArray[np.generic],
    exact: NDArray[np.float32],
    ranges: Ranges,
) -> list[Group]:
    """Return the groups of a network, the one that gains most from staying float first.

    Args:
        network: float ONNX as `quantize` takes it.
        quantize_on: (n, …) examples that set the ranges.
        measured_on: (m, …) other examples.
        exact: (m, labels) the float network's logits for them.
        ranges: as in `quantize`.
    """
    values, shown, wanted = quantize_on[:_EXAMPLES], measured_on[:_EXAMPLES], exact[:_EXAMPLES]

    def error(keep_float: tuple[str, ...]) -> float:
        made = quantize(network, values, ranges=ranges, keep_float=keep_float)
        return float(np.abs(OnnxRunner(made.shipped).logits(shown[:, None]) - wanted).mean())

    whole = max(error(()), 1e-12)
    found = [Group(layer, nodes, 1 - error(nodes) / whole) for layer, nodes in groups(network).items()]
    return sorted(found, key=lambda group: -group.gain)


def groups(network: onnx.ModelProto) -> Mapping[str, tuple[str, ...]]:
    """Return the nodes that stay float together, by the name of the layer that they begin with."""
    graph = prepared(network).graph
    weighted = set(layers(network))
    takers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node)
    return {node.name: _group(node, weighted, takers) for node in graph.node if node.name in weighted}


def _group(start: onnx.NodeProto, weighted: set[str], takers: Mapping[str, list[onnx.NodeProto]]) -> tuple[str, ...]:
    found, ahead = [start.name], [start]
    while ahead:
        for name in ahead.pop().output:
            for node in takers.get(name, []):
                if node.name in found:
                    continue
                found.append(node.name)
                if node.name not in weighted:
                    ahead.append(node)
    return tuple(found)
