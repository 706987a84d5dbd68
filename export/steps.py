"""Each step of a fit alone, on files: quantize a network, calibrate or audit a bundle, pack a folder.

Rules:
- A bundle is never changed: what comes of it is a new file.
- What cannot be used is said in the words of the family of errors that its mender reads.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import ValidationError

from edge.bundle import Bundle, load
from edge.errors import ConfigError, ModelError
from edge.preprocess import image_tensor, preprocess
from edge.wire.base import BundleRef
from edge.wire.manifest import MANIFEST_NAME, ImageInput, Manifest
from export import dataset, evidence, limits, onnx_export, page, scores
from export import pack as packing
from export.build import BuildReport, bundle_files
from export.evidence import Judged
from export.measuring import judge_items
from export.quantize import distance, quantize
from export.recipe import BuildData, Labelled, Recipe
from export.recorded import BY_RECORD, of_manifest

_METHODS = ("auto", "none", "temperature", "vector", "isotonic")


def quantize_file(model: Path, calibration: Path, out: Path, *, resize: str, count: int) -> dict[str, Any]:
    """Write `model.onnx`, `model.tflite` (if it can be written) and `model.json`; return what the last one holds.

    Raises:
        ConfigError: there is nothing to set the ranges with.
        ModelError: the network cannot be quantized.
    """
    network = _float_of_batch_one(onnx_export.stripped(_onnx(model)), model.name)
    values = _range_values(network, calibration, resize, count)
    quantized = quantize(network, values)
    files, specs, refused = {"model.onnx": quantized.shipped}, {"onnx": quantized.spec}, ""
    try:
        from export.tflite import write_tflite

        files["model.tflite"], specs["tflite"] = write_tflite(quantized)
    except ModelError as error:
        refused = str(error)
    found = {
        "models": {name: spec.model_dump() for name, spec in specs.items()},
        "distance": asdict(distance(network, quantized, values[: min(len(values), 512)])),
        "sizes_bytes": {"float32": model.stat().st_size, **{name: len(content) for name, content in files.items()}},
        "refused": refused,
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
    (out / "model.json").write_text(json.dumps(found, indent=1) + "\n")
    return found


def calibrate_bundle(
    bundle: Path,
    data: Path,
    out: Path,
    *,
    version: str,
    alpha: float,
    delta: float,
    method: str,
    good: str | None,
    group: str | None,
) -> BuildReport:
    """Write a new bundle with the same network, calibrated and bounded on these files.

    Raises:
        ConfigError: the files do not fit the bundle.
    """
    old = load(bundle)
    if method not in _METHODS:
        raise ConfigError(f"--method: expected {', '.join(_METHODS)}, got {method!r}")
    found = _readable(dataset.load(data, old.manifest.task, good=good, group=group))
    foreign = sorted(set(found.labels) - set(old.manifest.labels))
    if foreign:
        raise ConfigError(f"{data}: the bundle does not know {', '.join(foreign)}", hint=_known(old))
    windows = [dataset.read(item) for item in found.items]
    values = np.concatenate([preprocess(one.data, one.sample_rate_hz, old.manifest.input) for one in windows])
    labels = np.array([old.manifest.labels.index(item.label) for item in found.items])
    groups = np.unique(np.array([item.group for item in found.items]), return_inverse=True)[1]
    if len(np.unique(groups)) < 2:
        raise ConfigError(f"{data}: expected at least two independent {found.unit}s, got one")
    reference: Any = [
        one.data if isinstance(old.manifest.input, ImageInput) else (one.data, one.sample_rate_hz) for one in windows
    ]
    build = BuildData(
        quantize=values[:0],
        heldout=Labelled(values, labels, groups),
        reference=reference,
        golden=np.asarray(old.golden(old.manifest.prefer)[0]),
    )
    models = [(content, spec) for spec, content in (old.model(name) for name in _onnx_first(old))]
    recipe = _recipe_of(old, version, alpha, delta, method, found)
    return bundle_files(recipe, models, build, out)


def audit_bundle(
    bundle: Path,
    data: Path | None,
    rules: Path | None,
    against: Path | None,
    out: Path | None,
    html: Path | None,
    *,
    good: str | None = None,
    group: str | None = None,
    kept_scores: Path | None = None,
    judged_before: Path | None = None,
) -> dict[str, Any]:
    """Return audit and figures of a bundle on labelled files; write them into a new bundle or a page if asked.

    `kept_scores` is a file for the scores themselves, as `lineside-bench risk` reads them. `judged_before` is such a
    file with probabilities, in the place of `data`: of networks that never saw the examples, for a bundle that has.
    Without either, only figures that the bundle records are held against their limits.

    Raises:
        ConfigError: files or limits do not fit the bundle.
    """
    opened = load(bundle)
    agreed = limits.read(rules) if rules else None
    judged, before, by = _judgements(opened, data, judged_before, against, good, group)
    answer = limits.audit(judged, agreed, before, by, of_manifest(opened.manifest))
    figures: dict[str, Any] = {}
    metrics = dict(opened.manifest.metrics)
    if judged is not None:
        figures = evidence.figures(judged)
        metrics |= {"judged": figures, "curves": evidence.curves(judged)}
    audited = opened.manifest.model_copy(update={"audit": answer, "metrics": metrics})
    if kept_scores is not None:
        if judged is None:
            raise ConfigError("--scores: expected a folder of labelled files to score")
        source = data.name if data is not None else "kept judgements"
        scores.write(kept_scores, scores.of(judged, f"{opened.ref.name} {opened.ref.version} on {source}"))
    if out is not None:
        packing.write(audited, opened.files, out)
    if html is not None:
        html.write_text(page.render(Bundle(opened.ref, audited, opened.files)))
    return {"bundle": opened.ref.model_dump(), "audit": answer, "figures": figures}


def _judgements(
    opened: Bundle, data: Path | None, before: Path | None, against: Path | None, good: str | None, group: str | None
) -> tuple[Judged | None, Judged | None, str]:
    """Return judgements of the bundle, those of the version in service, and how they were made."""
    if data is not None and before is not None:
        raise ConfigError("expected either a folder of labelled files, or --judged with what was judged before")
    if data is None and against is not None:
        raise ConfigError("--against judges files: give the folder that they are in")
    if before is not None:
        kept = scores.read(before)
        return scores.judged(kept, opened.manifest), None, kept.name
    if data is None:
        return None, None, BY_RECORD
    found = dataset.load(data, opened.manifest.task, good=good, group=group)
    served = judge_items(load(against), found.items) if against else None
    words = f"this bundle's own file on {len(found.items)} files of {found.digest()[:12]}"
    return judge_items(opened, found.items), served, words


def audit_in_words(found: dict[str, Any]) -> list[str]:
    """Return an audit as lines for people."""
    audit = found["audit"]
    words = {None: "no limits were agreed (--limits FILE)", True: "PASSED", False: "FAILED"}[audit["passed"]]
    seen = f"{audit['examples']} examples, {audit['groups']} groups, " if audit["examples"] else ""
    lines = [f"{words}: {seen}{audit['judged_by']}"]
    for row in audit["limits"]:
        value = "" if row.get("value") is None else f"  {row['value']:.4f}"
        interval = f" ({row['low']:.4f}–{row['high']:.4f})" if "low" in row else ""
        why = f"  {row['why']}" if row.get("why") else ""
        lines.append(f"  {'passed' if row['passed'] else 'FAILED'}  {row['limit']}{value}{interval}{why}")
    for name, value in found["figures"].get("whole", {}).items():
        if value["value"] is not None:
            lines.append(
                f"  {name:<20}{value['value']:.2%} ({value['low']:.2%}–{value['high']:.2%}) of {value['total']}"
            )
    return [*lines, *(f"  not tested: {line}" for line in audit["not_tested"])]


def pack_folder(folder: Path, out: Path | None) -> tuple[Path, BundleRef]:
    """Write a folder's manifest and files as a bundle; return path and reference.

    Raises:
        ConfigError: the manifest is not there or not one.
    """
    try:
        text = json.loads((folder / MANIFEST_NAME).read_text())
        files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder / MANIFEST_NAME}: cannot be read: {error}") from error
    del files[MANIFEST_NAME]
    entries = {name: entry.model_dump() for name, entry in packing.file_entries(files).items()}
    try:
        listed = [name for name in text.get("files", {}) if name in entries]  # in the order that the bundle had
        ordered = {name: entries[name] for name in dict.fromkeys([*listed, *entries])}
        manifest = Manifest.model_validate({**text, "files": ordered})
    except (ValidationError, TypeError, AttributeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{folder / MANIFEST_NAME}: {place}: {first['msg']}") from error
    path = out or Path(f"{manifest.name}-{manifest.version}.lsb")
    return path, packing.write(manifest, files, path)


def _onnx(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # the parser's exceptions have no base of their own
        raise ModelError(f"{path}: not an ONNX file: {error}") from error


def _float_of_batch_one(network: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the network with batch 1, where its file leaves the batch open."""
    hint = "`lineside-export wrap` reads such files as they are, and quantizes float ones if asked"
    kinds = {node.op_type for node in network.graph.node}
    taken = network.graph.input[0].type.tensor_type if len(network.graph.input) == 1 else None
    if taken is None or taken.elem_type != onnx.TensorProto.FLOAT or "QuantizeLinear" in kinds:
        raise ModelError(f"{name}: expected a float network with one float input, got another one", hint=hint)
    dims = list(taken.shape.dim)
    for tensor in [taken, *(one.type.tensor_type for one in network.graph.output)]:
        if tensor.shape.dim and tensor.shape.dim[0].dim_value == 0:
            tensor.shape.dim[0].Clear()
            tensor.shape.dim[0].dim_value = 1
    sizes = [dim.dim_value for dim in dims]
    if not all(sizes) or sizes[0] != 1:
        raise ModelError(f"{name}: expected an input of fixed size and batch 1, got {sizes} (0 is open)", hint=hint)
    del network.graph.value_info[:]
    return network


def _range_values(network: onnx.ModelProto, calibration: Path, resize: str, count: int) -> NDArray[Any]:
    """Return examples (n, height, width, channels) as the network's preprocessing gives them."""
    if calibration.suffix == ".npy":
        try:
            return np.asarray(np.load(calibration, allow_pickle=False))[:count]
        except (OSError, ValueError, EOFError) as error:
            raise ConfigError(f"{calibration}: expected an array of preprocessed values: {error}") from error
    shape = [dim.dim_value for dim in network.graph.input[0].type.tensor_type.shape.dim]
    if len(shape) != 4 or shape[1] not in (1, 3) or resize not in ("stretch", "letterbox"):
        raise ConfigError(
            f"pictures do not fit input {shape}, resize {resize!r}",
            hint="expected (1, 1 or 3, height, width), and stretch or letterbox; or give preprocessed values as .npy",
        )
    spec = ImageInput.model_validate(
        {"width": shape[3], "height": shape[2], "color": "rgb" if shape[1] == 3 else "gray", "resize": resize}
    )
    paths = list(dataset.files(calibration, "image"))
    chosen = np.random.default_rng(1).permutation(len(paths))[:count]
    found = [window.data for window in (dataset.read_path(paths[i]) for i in sorted(chosen)) if window.data is not None]
    if not found:
        raise ConfigError(f"{calibration}: expected pictures, found none")
    return np.concatenate([image_tensor(one, spec) for one in found])


def _readable(found: dataset.Dataset) -> dataset.Dataset:
    return found.only(item for item in found.items if dataset.read(item).data is not None)


def _onnx_first(bundle: Bundle) -> list[str]:
    return sorted(bundle.manifest.models, key=lambda name: name != "onnx")


def _known(bundle: Bundle) -> str:
    return f"it knows {', '.join(bundle.manifest.labels)}"


def _recipe_of(old: Bundle, version: str, alpha: float, delta: float, method: str, found: dataset.Dataset) -> Recipe:
    manifest = old.manifest
    step = {"of": old.ref.digest, "dataset_digest": found.digest(), "alpha": alpha, "delta": delta, "method": method}
    return Recipe(
        name=manifest.name,
        version=version,
        task=manifest.task,
        input=manifest.input,
        labels=manifest.labels,
        created_at=found.newest(),
        description=manifest.description,
        alpha_escape=alpha,
        alpha_false_reject=alpha,
        alpha_error=alpha,
        delta=delta,
        unit=found.unit,
        calibration=cast(Any, method),
        prefer=cast(Any, manifest.prefer),
        memory_bytes=manifest.requires.memory_bytes,
        lineage={**manifest.lineage, "calibrated": step},
        metrics={name: value for name, value in manifest.metrics.items() if name in ("data", "simple", "learns_ten")},
    )
