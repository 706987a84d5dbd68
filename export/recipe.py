"""The values that a recipe hands to `build_bundle`: what the bundle is, and the data it is built from.

Rules:
- Values are preprocessed by `edge.preprocess`, exactly as a device does it; only `reference` holds raw inputs.
- Held-out examples share no group (part, speaker, position) with those that the network was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import Calibration, InputSpec, RuntimeName
from edge.wire.terms import Task

Runtime = RuntimeName
Method = Literal["none", "temperature", "vector", "isotonic", "auto"]
"""Of calibration."""
Ranges = Literal["minmax", "percentile", "entropy"]
"""How an activation's range is taken from what was seen: see `export.quantize.quantize`."""
Precision = Literal["int8", "float32"]
Sound = tuple[NDArray[np.float32], int]
"""Samples (n,) in −1…1, and their rate in Hz."""


@dataclass(frozen=True)
class Recipe:
    """What the bundle is and what it shall promise."""

    name: str
    version: str
    task: Task
    input: InputSpec
    labels: list[str]
    """In the order of the network's outputs."""
    created_at: str
    """ISO 8601, UTC. Given by the recipe, so that the same inputs give the same archive."""
    description: str = ""
    alpha_escape: float = 0.02
    """Inspection: at most this share of what passes by itself is defective."""
    alpha_false_reject: float = 0.02
    """Inspection: at most this share of what is diverted by itself is good."""
    alpha_error: float = 0.02
    """Keywords: at most this share of what is accepted is wrong."""
    delta: float = 0.05
    """Probability that the bounds do not hold, both together."""
    always_defer: tuple[float, float] | None = None
    """Inspection: defect scores between these two always go to a person, whatever the bounds would allow."""
    accept_at_least: float = 0.0
    """Keywords: nothing less probable is accepted, whatever the bound would allow."""
    fixed_thresholds: tuple[float, float] | None = None
    """Inspection: (pass_max, divert_min) chosen without the held-out data, which then only proves them. For samples
    too small to search in."""
    unit: str = "picture"
    """What is independent in the held-out data, in the singular: picture, part, speaker."""
    guarantee_note: str = ""
    """What a reader of the guarantee must know beyond its numbers: how independent the units really are."""
    calibration: Method = "temperature"
    """`isotonic` is for inspection; `auto` takes what a cross-validation on the pilot finds best."""
    ranges: Ranges | None = None
    """How the int8 network takes its activations' ranges, where the recipe has measured it (in cross-validation); None:
    what does best on the pilot."""
    keep_float: tuple[str, ...] = ()
    """Layers and parts that are not quantized, as `export.quantize.quantize` takes them: what the recipe has measured
    to lose too much, and preprocessing inside the network (a logarithm has no good 8-bit form). Not for TFLite."""
    runtimes: tuple[Runtime, ...] = ("onnx", "tflite")
    prefer: Runtime = "onnx"
    precision: Precision = "int8"
    """Of the shipped file; float32 is written for onnxruntime alone."""
    golden_count: int = 6
    memory_bytes: int = 0
    """Free memory that a device must have to take the bundle."""
    lineage: dict[str, Any] = field(default_factory=dict)
    """Code commit, dataset digest, hyperparameters, seed."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """The recipe's own figures; those of the export are added under `export`."""
    gate_least: Mapping[str, float] = field(default_factory=dict)
    """Of the gate, by metric: a minimum lies at no less than this share of the lowest seen. For stations whose lights
    are known, where less light is a fault; without it minima are drawn widely."""
    limits: Path | None = None
    """Limits agreed beforehand, a file as `export.limits` reads it: the figures above are held against them."""


@dataclass(frozen=True)
class Labelled:
    """Examples with what is known about them.

    `values` (n, height, width, channels) uint8 for pictures, (n, frames, mel_bands, 1) float32 for sound;
    `labels` (n,) indices into the recipe's labels; `groups` (n,) says which examples belong to the same unit,
    None if each stands alone. `logits` (n, labels) are those of int8 networks that were trained as the shipped one
    but never saw the example's group (cross-validation); None where the shipped network itself never saw it.
    """

    values: NDArray[Any]
    labels: NDArray[np.intp]
    groups: NDArray[Any] | None = None
    logits: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[Any]) -> "Labelled":
        """Return the examples at these positions."""
        groups = None if self.groups is None else self.groups[index]
        logits = None if self.logits is None else self.logits[index]
        return Labelled(self.values[index], self.labels[index], groups, logits)


@dataclass(frozen=True)
class BuildData:
    """The data that a bundle is built from."""

    quantize: NDArray[Any]
    """Training examples that set the ranges of the quantized network, (n, …) as in `Labelled.values`; 64–512 do."""
    heldout: Labelled
    """Examples for thresholds; if `pilot` is None a part of the groups is split off for it."""
    reference: Sequence[NDArray[np.uint8]] | Sequence[Sound]
    """Raw inputs as a device meets them in good order, for gate limits and drift: BGR pictures, or sounds."""
    fresh: Sequence[NDArray[np.uint8]] | Sequence[Sound] | None = None
    """Raw inputs as they are when all is new, for drift alone, where `reference` also holds what is older and still
    to be judged; None takes `reference`."""
    pilot: Labelled | None = None
    """Examples that fit the calibration and say where to begin the search for thresholds."""
    known: NDArray[Any] | None = None
    """Training examples that say what known features look like, as in `Labelled.values`; None takes `quantize`. The
    more features a network gives, the more it takes: ten to a feature do. The pilot's are added."""
    golden: NDArray[Any] | None = None
    """Inputs for the golden examples, as in `Labelled.values`; None takes held-out examples. For networks with large
    pictures: simpler ones, that pack into few bytes."""
    strange: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Inputs of other kinds than the network was made for (another material, another thing), by what they are, each
    (n, …) as in `Labelled.values`: the report says how many of each are recognised. For networks with features."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration with the proof of what it brought."""

    calibration: Calibration
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    method: str = "none"
    tried: dict[str, float] = field(default_factory=dict)
    """Cross-validated mean negative log-likelihood of each method, where the choice was `auto`."""


def split_by_group(examples: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """Return (first, rest) with about `share` of the groups in the first part; no group is in both.

    Raises:
        ValueError: there are fewer than two groups.
    """
    groups = np.arange(len(examples)) if examples.groups is None else examples.groups
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(f"held-out data: expected at least 2 independent groups, got {len(names)}")
    order = np.random.default_rng(seed).permutation(len(names))
    first = names[order[: min(max(1, round(share * len(names))), len(names) - 1)]]
    inside = np.isin(groups, first)
    return examples.take(np.flatnonzero(inside)), examples.take(np.flatnonzero(~inside))
