"""Builds a bundle from a trained network: the one call that a recipe makes.

float ONNX → int8 → shipped files → logits of held-out data → calibration → thresholds → reference → golden → archive

Rules:
- Every figure of the manifest is measured on the shipped ONNX file, not on the float network; where held-out data
  brings cross-validated logits, thresholds and calibration are measured on those, and the guarantee says so.
- The part of the held-out data that fits the calibration never proves a threshold.
- A TFLite file is shipped only if LiteRT agrees with onnxruntime on the held-out data: logits within the tolerance,
  and at least 99.5 % of the decisions.
- What quantization may cost, and what is done about it, stands in `export.shipping`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.calibrate import probabilities
from edge.wire.base import BundleRef
from edge.wire.manifest import GOOD_LABEL, Calibration, Golden, Manifest, ModelFile, Policy, Requires
from export import calibration, golden, limits, onnx_export, ood, pack, reference, strange, thresholds
from export import figures as figures_of
from export.recipe import BuildData, Recipe, Runtime, split_by_group
from export.recorded import BY_RECORD, of_manifest
from export.scores import Scores
from export.shipping import Shipped, run, ship

if TYPE_CHECKING:
    import torch

_PILOT_SHARE = 0.3
"""Share of the groups that fit the calibration where the recipe gives no pilot; the rest proves thresholds."""
_PILOT_SEED = 1
_STRANGE_SEED = 2


@dataclass(frozen=True)
class BuildReport:
    """What was built and how good it is; `metrics["export"]` of the manifest holds the same figures."""

    ref: BundleRef
    path: Path
    policy: Policy
    figures: dict[str, Any]
    scores: Scores | None = None
    """Calibrated scores of the held-out data with their truth, for `export.scores.write`; None without labels."""


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
        ModelError: the network cannot be quantized or written in one of the recipe's formats, or loses too much.
        ValueError: the held-out data has too few groups.
    """
    float_model = _float_model(network, data.quantize)
    data = _with_pilot(data)
    shipped, figures = ship(recipe, float_model, data)
    return _finished(recipe, shipped, data, out, {"quantization": figures})


def bundle_files(
    recipe: Recipe,
    models: list[tuple[bytes, ModelFile]],
    data: BuildData,
    out: Path,
    *,
    policy: Policy | None = None,
    figures: dict[str, Any] | None = None,
) -> BuildReport:
    """Build, check and write a bundle from model files as they are; `data.quantize` is not used.

    Args:
        recipe: what the bundle is and what it shall promise; its runtimes are not used.
        models: the files with what the manifest says about them, the first is the one that figures are measured on.
        data: what it is calibrated on; see `BuildData`.
        out: the `.lsb` file to write.
        policy: for data without labels (all below 0): taken as it is, and nothing is calibrated.
        figures: added to those of the export.

    Raises:
        ModelError: an engine does not take a file.
        ValueError: the held-out data has too few groups.
    """
    if policy is None:
        data = _with_pilot(data)
    shipped: dict[Runtime, Shipped] = {
        spec.runtime: run(content, spec, data.heldout.values) for content, spec in models
    }
    return _finished(recipe, shipped, data, out, figures or {}, policy)


def _with_pilot(data: BuildData) -> BuildData:
    if data.pilot is not None:
        return data
    pilot, heldout = split_by_group(data.heldout, _PILOT_SHARE, _PILOT_SEED)
    return replace(data, pilot=pilot, heldout=heldout)


def _finished(
    recipe: Recipe,
    shipped: Mapping[Runtime, Shipped],
    data: BuildData,
    out: Path,
    figures: dict[str, Any],
    policy: Policy | None = None,
) -> BuildReport:
    """Calibrate, choose thresholds (unless there is a policy) and write."""
    measured = next(iter(shipped.values()))
    logits = measured.logits if data.heldout.logits is None else data.heldout.logits
    known = _recognition(recipe, data, measured)
    if policy is None:
        assert data.pilot is not None
        pilot_logits = data.pilot.logits
        if pilot_logits is None:
            pilot_logits = golden.outputs(measured.content, measured.spec, data.pilot.values)
        fitted = calibration.fit(
            pilot_logits,
            data.pilot.labels,
            recipe.calibration,
            groups=data.pilot.groups,
            good=recipe.labels.index(GOOD_LABEL) if recipe.task == "inspect" else None,
        )
        chances = probabilities(logits, fitted.calibration)
        pilot_chances = probabilities(pilot_logits, fitted.calibration)
        policy = _policy(recipe, data, pilot_chances, chances, recognises=known is not None)
        figures = {
            "heldout": figures_of.heldout(recipe, data.heldout, chances, policy),
            "calibration": figures_of.calibrated_figures(fitted, logits, chances, data.heldout.labels),
            **figures,
        }
        calibrated = fitted.calibration
        scored = Scores(
            figures_of.sample_of(recipe, data.heldout, chances), recipe.task, f"{recipe.name} {recipe.version}"
        )
    else:
        scored = None
        calibrated = Calibration()
        chances = probabilities(logits, calibrated)
    figures = {
        **figures,
        "sizes_bytes": {name: len(item.content) for name, item in shipped.items()},
        "reference_size": len(data.reference),
        **({} if known is None else {"out_of_distribution": known.figures}),
        **figures_of.parity(recipe, shipped, calibrated, policy),
    }
    manifest, files = _assemble(recipe, data, shipped, calibrated, policy, chances, known, figures)
    ref = pack.write(manifest, files, out)
    return BuildReport(ref=ref, path=out, policy=policy, figures=figures, scores=scored)


def _float_model(network: "torch.nn.Module | onnx.ModelProto | Path", values: NDArray[Any]) -> onnx.ModelProto:
    if isinstance(network, Path):
        return onnx_export.stripped(onnx.load(str(network)))
    if isinstance(network, onnx.ModelProto):
        return onnx_export.stripped(network)
    height, width, channels = values.shape[1:]
    return onnx_export.float_onnx(network, (channels, height, width))


def _recognition(recipe: Recipe, data: BuildData, shipped: Shipped) -> ood.Recognition | None:
    """Return what known features look like, if the network gives features and there is a pilot to learn them from."""
    if shipped.answers.features is None or data.pilot is None:
        return None

    def features(values: NDArray[Any]) -> ood.Features:
        found = run(shipped.content, shipped.spec, values).answers.features
        assert found is not None
        return found

    known = data.quantize if data.known is None else data.known
    made = strange.strangers(data.heldout.values, _STRANGE_SEED)
    found = ood.fit(
        np.concatenate([features(values) for values in (known, data.pilot.values) if len(values)]),
        shipped.answers.features,
        data.heldout.groups,
        {kind: features(values) for kind, values in made.items()},
        unit=recipe.unit,
        told={kind: features(values) for kind, values in data.strange.items()},
    )
    alarmed = found.scores > found.spec.limit
    found.figures["false_alarms_by_label"] = {
        label: round(float(alarmed[data.heldout.labels == index].mean()), 5)
        for index, label in enumerate(recipe.labels)
        if bool(np.any(data.heldout.labels == index))
    }
    if data.heldout.logits is None:
        return found
    return ood.with_note(found, "the network has seen the groups that set the limit: others may score higher")


def _policy(
    recipe: Recipe,
    data: BuildData,
    pilot_chances: NDArray[np.float64],
    chances: NDArray[np.float64],
    *,
    recognises: bool,
) -> Policy:
    assert data.pilot is not None
    pilot = figures_of.sample_of(recipe, data.pilot, pilot_chances)
    sample = figures_of.sample_of(recipe, data.heldout, chances)
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
            pilot,
            sample,
            alpha_error=recipe.alpha_error,
            delta=recipe.delta,
            unit=recipe.unit,
            accept_at_least=recipe.accept_at_least,
        )
    notes = [recipe.guarantee_note] if recipe.guarantee_note else []
    if recognises:
        notes.append("holds before inputs out of distribution are deferred, which takes a few more off")
    if data.heldout.logits is not None:
        notes.append("on cross-validated scores: of networks trained alike that never saw the example's group")
    return thresholds.with_notes(policy, notes)


def _assemble(
    recipe: Recipe,
    data: BuildData,
    shipped: Mapping[Runtime, Shipped],
    fitted: Calibration,
    policy: Policy,
    chances: NDArray[np.float64],
    known: ood.Recognition | None,
    figures: dict[str, Any],
) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and the archive's files."""
    examples = golden.choose(data.heldout, recipe.golden_count) if data.golden is None else data.golden
    files = {item.spec.file: item.content for item in shipped.values()}
    files["golden_inputs.npy"] = golden.as_npy(examples)
    extras: dict[str, str] = {}
    for runtime, item in shipped.items():
        answers = golden.answers(item.content, item.spec, examples)
        files[f"golden_{runtime}.npy"] = golden.as_npy(answers[:, : len(recipe.labels)])
        if answers.shape[1] > len(recipe.labels):
            extras[runtime] = f"golden_extras_{runtime}.npy"
            files[extras[runtime]] = golden.as_npy(answers[:, len(recipe.labels) :])
    metrics = reference.measure(data.reference)
    fresh = metrics if data.fresh is None else reference.measure(data.fresh)
    histograms = {**fresh, "confidence": figures_of.confidence(recipe, chances)}
    if known is not None:
        files[known.spec.file] = known.content
        histograms["ood"] = known.scores
    manifest = Manifest(
        name=recipe.name,
        version=recipe.version,
        task=recipe.task,
        description=recipe.description,
        created_at=recipe.created_at,
        input=recipe.input,
        labels=recipe.labels,
        models={runtime: item.spec for runtime, item in shipped.items()},
        prefer=recipe.prefer if recipe.prefer in shipped else next(iter(shipped)),
        calibration=fitted,
        policy=policy,
        gate=reference.gate_limits(metrics, recipe.gate_least),
        reference=reference.histograms(histograms),
        out_of_distribution=None if known is None else known.spec,
        golden=Golden(
            inputs="golden_inputs.npy",
            outputs={runtime: f"golden_{runtime}.npy" for runtime in shipped},
            extras=extras,
            count=len(examples),
        ),
        requires=Requires(memory_bytes=recipe.memory_bytes),
        lineage=recipe.lineage,
        metrics={**recipe.metrics, "export": figures},
        files=pack.file_entries(files),
    )
    if recipe.limits is not None:
        answer = limits.audit(None, limits.read(recipe.limits), judged_by=BY_RECORD, recorded=of_manifest(manifest))
        manifest = manifest.model_copy(update={"audit": answer})
    return manifest, files
