"""Makes the files that are shipped of a float network, and refuses to ship what quantization has spoiled.

Rules:
- How activation ranges are taken is the recipe's choice, or chosen by the accuracy measured on the pilot; where
  accuracies are an example or less apart, by the error of the logits. Histograms cost by the size of the network: for
  a large one they are tried only where the plain range costs accuracy.
- What a recipe names stays float from the start.
- Accuracy lost against the float network on held-out data is at most 0.5 points (point estimate; its interval goes by
  group). Beyond that the most sensitive layers stay float, and if it is still too much nothing is shipped.
- A single example more or less is no loss that anyone could measure.
- A recipe may ask for float, where that was measured to be worth it: then nothing is quantized and nothing lost.
- What cannot be written for TFLite because layers stayed float is shipped as ONNX alone, and the figures say so.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.errors import ModelError
from edge.wire.manifest import ModelFile
from export import golden, sensitivity
from export.floating import float_file
from export.quantize import Distance, Quantized, distance_of, prepared, quantize, to_network
from export.recipe import BuildData, Labelled, Ranges, Recipe, Runtime
from export.run import OnnxRunner

MOST_LOST = 0.005
"""Share of accuracy that quantization may cost."""
_PILOT_EXAMPLES, _HELDOUT_EXAMPLES = 256, 2000
_HISTOGRAM_EXAMPLES, _LEAST_EXAMPLES = 64, 16
_HISTOGRAM_NUMBERS = 150e6
"""Activations that go into histograms at most: about 15 s (80 ns each, measured)."""
_UNDISTURBED = 0.995
"""Share of unchanged answers from which on a large network's plain ranges are not questioned."""
_SEED = 4


@dataclass(frozen=True)
class Shipped:
    """A model file with what it answers to the held-out data."""

    content: bytes
    spec: ModelFile
    answers: golden.Answers

    @property
    def logits(self) -> NDArray[np.float32]:
        return self.answers.logits


@dataclass(frozen=True)
class Loss:
    """Accuracy of the float network less that of the int8 one on the same examples, as shares."""

    count: int
    float_accuracy: float
    int8_accuracy: float
    lost: float
    low: float
    """95 % interval of `lost`, by group."""
    high: float
    examples: int
    """Right by the float network alone, less right by the int8 one alone."""

    @property
    def too_much(self) -> bool:
        return self.lost > MOST_LOST and self.examples > 1


def run(content: bytes, spec: ModelFile, values: NDArray[Any]) -> Shipped:
    """Run a file over preprocessed values (n, …)."""
    return Shipped(content, spec, golden.split(golden.answers(content, spec, values), spec))


def ship(recipe: Recipe, network: onnx.ModelProto, data: BuildData) -> tuple[dict[Runtime, Shipped], dict[str, Any]]:
    """Return the files of a float network with their answers to the held-out data, and figures of the quantization.

    Args:
        recipe: names the formats.
        network: float ONNX as `export.quantize.quantize` takes it.
        data: with a pilot.

    Raises:
        ModelError: it cannot be quantized or written, or loses too much; the message names the layers.
    """
    assert data.pilot is not None
    if recipe.precision == "float32":
        shipped = run(*float_file(network, data.quantize), data.heldout.values)
        return {"onnx": shipped}, {"precision": "float32"}
    ranges, tried = (recipe.ranges, {}) if recipe.ranges else _ranges(network, data.quantize, data.pilot)
    judged = _some(data.heldout, _HELDOUT_EXAMPLES)
    exact = _float_logits(network, judged.values)
    quantized = quantize(network, data.quantize, ranges=ranges, keep_float=recipe.keep_float)
    loss, apart = _measured(quantized, judged, exact)
    figures: dict[str, Any] = {"ranges": ranges, "ranges_tried": tried}
    if recipe.keep_float:
        figures["kept_float"] = list(recipe.keep_float)
    if loss.too_much:
        order = _sensitive(network, data, ranges)
        base = recipe.keep_float
        quantized, loss, apart, kept = _partly_float(network, data, ranges, order, judged, exact, loss, base)
        figures |= {"kept_float": kept, "sensitivity": {group.layer: round(group.gain, 4) for group in order[:10]}}
    figures = {**_rounded(asdict(apart)), **_rounded(asdict(loss)), **figures}
    return _files(recipe, quantized, data.heldout.values, figures), figures


def lost(
    exact: NDArray[np.float32], coarse: NDArray[np.float32], labels: NDArray[np.intp], groups: NDArray[Any] | None
) -> Loss:
    """Return the accuracy that the int8 logits (n, labels) lose against the float ones."""
    before, after = exact.argmax(1) == labels, coarse.argmax(1) == labels
    change = before.astype(np.float64) - after
    numbers = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    many, mean = int(numbers.max()) + 1, float(change.mean())
    spread = np.bincount(numbers, change - mean, many)
    error = math.sqrt(many / max(many - 1, 1) * float(np.sum(spread**2))) / len(labels)
    # Where nothing changed nothing was seen to vary: then the rule of three, over groups.
    reach = 1.96 * error if error > 0 else 3.0 / many
    return Loss(
        count=len(labels),
        float_accuracy=float(before.mean()),
        int8_accuracy=float(after.mean()),
        lost=mean,
        low=max(mean - reach, -1.0),
        high=min(mean + reach, 1.0),
        examples=round(float(change.sum())),
    )


def _ranges(network: onnx.ModelProto, values: NDArray[Any], pilot: Labelled) -> tuple[Ranges, dict[str, Any]]:
    """Return the way of taking ranges that keeps most accuracy on the pilot, with what each was measured at."""
    judged = _some(pilot, _PILOT_EXAMPLES)
    exact = _float_logits(network, judged.values)
    tried: dict[str, Any] = {}

    def score(ranges: Ranges, examples: NDArray[Any]) -> tuple[float, float]:
        loss, apart = _measured(quantize(network, examples, ranges=ranges), judged, exact)
        tried[ranges] = {"accuracy": round(loss.int8_accuracy, 5), "logit_error": round(apart.logit_error, 5)}
        undisturbed.append(apart.agreement)
        return loss.int8_accuracy, -apart.logit_error

    undisturbed: list[float] = []
    scores: dict[Ranges, tuple[float, float]] = {"minmax": score("minmax", values)}
    affordable = int(_HISTOGRAM_NUMBERS / max(_activations(network), 1))
    if affordable >= _LEAST_EXAMPLES or undisturbed[0] < _UNDISTURBED:
        examples = values[: min(max(affordable, _LEAST_EXAMPLES), _HISTOGRAM_EXAMPLES)]
        scores["percentile"], scores["entropy"] = score("percentile", examples), score("entropy", examples)
    enough = max(accuracy for accuracy, _ in scores.values()) - 1.01 / len(judged)
    alike = [ranges for ranges, (accuracy, _) in scores.items() if accuracy >= enough]
    return max(alike, key=lambda ranges: scores[ranges][1]), tried


def _activations(network: onnx.ModelProto) -> int:
    """Return how many numbers a network computes on its way for one example."""
    graph = onnx.shape_inference.infer_shapes(prepared(network)).graph
    return sum(math.prod(max(d.dim_value, 1) for d in v.type.tensor_type.shape.dim) for v in graph.value_info)


def _sensitive(network: onnx.ModelProto, data: BuildData, ranges: Ranges) -> list[sensitivity.Group]:
    assert data.pilot is not None
    shown = _some(data.pilot, _PILOT_EXAMPLES).values
    return sensitivity.ranked(network, data.quantize, shown, _float_logits(network, shown), ranges)


def _partly_float(
    network: onnx.ModelProto,
    data: BuildData,
    ranges: Ranges,
    order: Sequence[sensitivity.Group],
    judged: Labelled,
    exact: NDArray[np.float32],
    whole: Loss,
    base: Sequence[str],
) -> tuple[Quantized, Loss, Distance, list[str]]:
    """Keep the most sensitive groups float, one, two, four …, at most a quarter of them, until little is lost."""
    most = max(2, len(order) // 4)
    count, kept, loss = 1, [], whole
    while count <= most:
        kept = [*base, *(group.layer for group in order[:count])]
        nodes = {node for group in order[:count] for node in group.nodes}
        quantized = quantize(network, data.quantize, ranges=ranges, keep_float=[*base, *sorted(nodes)])
        loss, apart = _measured(quantized, judged, exact)
        if not loss.too_much:
            return quantized, loss, apart, kept
        count = min(2 * count, most) if count < most else most + 1
    worst = ", ".join(f"{group.layer} ({group.gain:.0%} of the error)" for group in order[:most])
    raise ModelError(
        f"int8 loses {whole.lost:.2%} of accuracy ({whole.low:.2%} to {whole.high:.2%}, {whole.count} examples), "
        f"and {loss.lost:.2%} with its most sensitive layers kept float: {worst}; at most {MOST_LOST:.1%} may be lost",
        hint="bound these layers' activations (ReLU6, normalisation), give more examples for ranges, or train longer",
    )


def _files(
    recipe: Recipe, quantized: Quantized, values: NDArray[Any], figures: dict[str, Any]
) -> dict[Runtime, Shipped]:
    shipped: dict[Runtime, Shipped] = {"onnx": run(quantized.shipped, quantized.spec, values)}
    if "tflite" not in recipe.runtimes:
        return shipped
    from export.tflite import write_tflite

    try:
        content, spec = write_tflite(quantized)
    except ModelError as error:
        if not figures.get("kept_float"):
            raise
        figures["onnx_only"] = f"layers stayed float: {error}"
        return shipped
    shipped["tflite"] = run(content, spec, values)
    worst = float(np.abs(shipped["tflite"].logits - shipped["onnx"].logits).max())
    if worst > spec.golden_tolerance:
        raise ModelError(
            f"tflite: logits differ from onnx by {worst:.4g}, tolerance {spec.golden_tolerance:.4g}",
            hint="ship this network as onnx only: Recipe(runtimes=('onnx',))",
        )
    return shipped


def _measured(quantized: Quantized, judged: Labelled, exact: NDArray[np.float32]) -> tuple[Loss, Distance]:
    coarse = OnnxRunner(quantized.shipped).logits(judged.values[:, None])
    return lost(exact, coarse, judged.labels, judged.groups), distance_of(exact, coarse)


def _float_logits(network: onnx.ModelProto, values: NDArray[Any]) -> NDArray[np.float32]:
    runner = OnnxRunner(network.SerializeToString())
    return np.concatenate([runner.logits(to_network(value[None])[:, None]) for value in values])


def _some(examples: Labelled, most: int) -> Labelled:
    if len(examples) <= most:
        return examples
    return examples.take(np.sort(np.random.default_rng(_SEED).permutation(len(examples))[:most]))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
