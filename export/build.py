"""Builds a bundle from a trained network: the one call that a recipe makes.

float ONNX → int8 → shipped files → logits of held-out data → calibration → thresholds → reference → golden → archive

Rules:
- Every figure of the manifest is measured on the shipped ONNX file, not on the float network; where held-out data
  brings cross-validated logits, thresholds and calibration are measured on those, and the guarantee says so.
- The part of the held-out data that fits the calibration never proves a threshold.
- A TFLite file is shipped only if LiteRT agrees with onnxruntime on the held-out data within the tolerance.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.calibrate import probabilities
from edge.errors import ModelError
from edge.wire.base import BundleRef
from edge.wire.manifest import GOOD_LABEL, Golden, InspectPolicy, Manifest, ModelFile, Policy, Requires
from export import calibration, golden, onnx_export, pack, reference, thresholds
from export.quantize import Quantized, distance, quantize
from export.recipe import BuildData, Calibrated, Labelled, Recipe, split_by_group

if TYPE_CHECKING:
    import torch

_PILOT_SHARE = 0.3
"""Share of the groups that fit the calibration where the recipe gives no pilot; the rest proves thresholds."""
_PILOT_SEED = 1
_DISTANCE_EXAMPLES = 512
"""Held-out examples on which the float and int8 networks are compared; the figures move little beyond that."""


@dataclass(frozen=True)
class BuildReport:
    """What was built and how good it is; `metrics["export"]` of the manifest holds the same figures."""

    ref: BundleRef
    path: Path
    policy: Policy
    figures: dict[str, Any]


@dataclass(frozen=True)
class _Shipped:
    """A model file with the logits (n, labels) that it gives for the held-out data."""

    content: bytes
    spec: ModelFile
    logits: NDArray[np.float32]


def build_bundle(
    recipe: Recipe, network: "torch.nn.Module | onnx.ModelProto | Path", data: BuildData, out: Path
) -> BuildReport:
    """Build, check and write a bundle.

    Args:
        recipe: what the bundle is and what it shall promise.
        network: trained torch module (channels first, float logits out), the same as float ONNX, or its path.
        data: what it is built from; see `BuildData`.
        out: the `.lsb` file to write.

    Raises:
        ModelError: the network cannot be quantized or written in one of the recipe's formats.
        ValueError: the held-out data has too few groups.
    """
    if data.pilot is None:
        pilot, heldout = split_by_group(data.heldout, _PILOT_SHARE, _PILOT_SEED)
        data = replace(data, pilot=pilot, heldout=heldout)
    assert data.pilot is not None
    float_model = _float_model(network, data.quantize)
    quantized = quantize(float_model, data.quantize)
    shipped = _shipped(recipe, quantized, data.heldout.values)
    pilot_logits = data.pilot.logits
    if pilot_logits is None:
        pilot_logits = golden.outputs(quantized.shipped, quantized.spec, data.pilot.values)
    fitted = calibration.fit(pilot_logits, data.pilot.labels, recipe.calibration)
    heldout_logits = shipped["onnx"].logits if data.heldout.logits is None else data.heldout.logits
    chances = probabilities(heldout_logits, fitted.calibration)
    policy = _policy(recipe, data, probabilities(pilot_logits, fitted.calibration), chances)
    figures = {
        "heldout": _heldout_figures(recipe, data.heldout, chances, policy),
        "calibration": {k: round(v, 5) for k, v in asdict(fitted).items() if k != "calibration"},
        "quantization": _rounded(asdict(distance(float_model, quantized, data.heldout.values[:_DISTANCE_EXAMPLES]))),
        "sizes_bytes": {name: len(item.content) for name, item in shipped.items()},
        "reference_size": len(data.reference),
        **_parity(shipped),
    }
    manifest, files = _assemble(recipe, data, shipped, fitted, policy, chances, figures)
    ref = pack.write(manifest, files, out)
    return BuildReport(ref=ref, path=out, policy=policy, figures=figures)


def _float_model(network: "torch.nn.Module | onnx.ModelProto | Path", values: NDArray[Any]) -> onnx.ModelProto:
    if isinstance(network, Path):
        return onnx_export.stripped(onnx.load(str(network)))
    if isinstance(network, onnx.ModelProto):
        return onnx_export.stripped(network)
    height, width, channels = values.shape[1:]
    return onnx_export.float_onnx(network, (channels, height, width))


def _shipped(recipe: Recipe, quantized: Quantized, values: NDArray[Any]) -> dict[str, _Shipped]:
    shipped = {
        "onnx": _Shipped(quantized.shipped, quantized.spec, golden.outputs(quantized.shipped, quantized.spec, values))
    }
    if "tflite" in recipe.runtimes:
        from export.tflite import write_tflite

        content, spec = write_tflite(quantized)
        shipped["tflite"] = _Shipped(content, spec, golden.outputs(content, spec, values))
        worst = float(np.abs(shipped["tflite"].logits - shipped["onnx"].logits).max())
        if worst > spec.golden_tolerance:
            raise ModelError(
                f"tflite: logits differ from onnx by {worst:.4g}, tolerance {spec.golden_tolerance:.4g}",
                hint="ship this network as onnx only: Recipe(runtimes=('onnx',))",
            )
    return shipped


def _policy(
    recipe: Recipe, data: BuildData, pilot_chances: NDArray[np.float64], chances: NDArray[np.float64]
) -> Policy:
    assert data.pilot is not None
    pilot = _sample(recipe, data.pilot, pilot_chances)
    sample = _sample(recipe, data.heldout, chances)
    policy: Policy
    if recipe.task == "inspect":
        policy = thresholds.choose_inspect(
            pilot,
            sample,
            alpha_escape=recipe.alpha_escape,
            alpha_false_reject=recipe.alpha_false_reject,
            delta=recipe.delta,
            unit=recipe.unit,
            always_defer=recipe.always_defer,
            fixed=recipe.fixed_thresholds,
        )
    else:
        policy = thresholds.choose_keyword(
            pilot, sample, alpha_error=recipe.alpha_error, delta=recipe.delta, unit=recipe.unit
        )
    notes = [recipe.guarantee_note] if recipe.guarantee_note else []
    if data.heldout.logits is not None:
        notes.append("on cross-validated scores: of networks trained alike that never saw the example's group")
    return thresholds.with_notes(policy, notes)


def _sample(recipe: Recipe, examples: Labelled, chances: NDArray[np.float64]) -> thresholds.Sample:
    if recipe.task == "inspect":
        good = recipe.labels.index(GOOD_LABEL)
        return thresholds.Sample(1.0 - chances[:, good], examples.labels != good, examples.groups)
    return thresholds.Sample(chances.max(1), chances.argmax(1) == examples.labels, examples.groups)


def _heldout_figures(
    recipe: Recipe, examples: Labelled, chances: NDArray[np.float64], policy: Policy
) -> dict[str, Any]:
    """Measure the shipped thresholds on the sample that proved them, per example."""
    right = chances.argmax(1) == examples.labels
    recall = {
        label: round(float(right[examples.labels == index].mean()), 4)
        for index, label in enumerate(recipe.labels)
        if bool(np.any(examples.labels == index))
    }
    figures: dict[str, Any] = {"count": len(examples), "accuracy": round(float(right.mean()), 4), "recall": recall}
    sample = _sample(recipe, examples, chances)
    if isinstance(policy, InspectPolicy):
        passed, diverted = sample.score <= policy.pass_max, sample.score >= policy.divert_min
        diverted &= ~passed
        figures |= {
            "coverage": round(float(np.mean(passed | diverted)), 4),
            "passed": int(passed.sum()),
            "escapes": int((passed & sample.event).sum()),
            "diverted": int(diverted.sum()),
            "false_rejects": int((diverted & ~sample.event).sum()),
        }
    else:
        accepted = sample.score >= policy.accept_min
        figures |= {
            "coverage": round(float(np.mean(accepted)), 4),
            "accepted": int(accepted.sum()),
            "wrong": int((accepted & ~sample.event).sum()),
        }
    return figures


def _parity(shipped: dict[str, _Shipped]) -> dict[str, Any]:
    if "tflite" not in shipped:
        return {}
    a, b = shipped["onnx"].logits, shipped["tflite"].logits
    step = shipped["tflite"].spec.output.scale or 1.0
    return {
        "parity": {
            "max_steps": round(float(np.abs(a - b).max()) / step, 2),
            "equal_share": round(float(np.mean(np.abs(a - b) < step / 2)), 5),
            "same_label_share": round(float(np.mean(a.argmax(1) == b.argmax(1))), 5),
        }
    }


def _assemble(
    recipe: Recipe,
    data: BuildData,
    shipped: dict[str, _Shipped],
    fitted: Calibrated,
    policy: Policy,
    chances: NDArray[np.float64],
    figures: dict[str, Any],
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the archive's files."""
    examples = golden.choose(data.heldout, recipe.golden_count) if data.golden is None else data.golden
    files = {item.spec.file: item.content for item in shipped.values()}
    files["golden_inputs.npy"] = golden.as_npy(examples)
    for runtime, item in shipped.items():
        files[f"golden_{runtime}.npy"] = golden.as_npy(golden.outputs(item.content, item.spec, examples))
    metrics = reference.measure(data.reference)
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        description=recipe.description,
        created_at=recipe.created_at,
        input=recipe.input,
        labels=recipe.labels,
        models={runtime: item.spec for runtime, item in shipped.items()},
        prefer=recipe.prefer,
        calibration=fitted.calibration,
        policy=policy,
        gate=reference.gate_limits(metrics),
        reference=reference.histograms({**metrics, "confidence": _confidence(recipe, chances)}),
        golden=Golden(
            inputs="golden_inputs.npy",
            outputs={runtime: f"golden_{runtime}.npy" for runtime in shipped},
            count=len(examples),
        ),
        requires=Requires(memory_bytes=recipe.memory_bytes),
        lineage=recipe.lineage,
        metrics={**recipe.metrics, "export": figures},
        files=pack.file_entries(files),
    )
    return manifest, files


def _confidence(recipe: Recipe, chances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what a device records as confidence: of the likelier side for inspection, else of the label."""
    if recipe.task == "inspect":
        good = chances[:, recipe.labels.index(GOOD_LABEL)]
        return np.maximum(good, 1.0 - good)
    return np.asarray(chances.max(1))


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}
