"""Gives the finished bundles a heat map by their own network: `python -m models.phone_glass.heatmap`.

Rules:
- The network stays as it is, and so do its logits and features, bit for bit, in both formats, or nothing is written.
- What is new is one layer of one channel on the last map, 65 numbers, fitted to cells of drawn parts whose defect is
  known: logistic regression, so that a value is the log-odds of a defect in the cell, counted from −4 up.
- It is measured on other parts: the largest value of a defective part lies on its defect, or a cell beside it, or not.
- Run `python -m models.audits phone_glass` after it.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter
from sklearn.linear_model import LogisticRegression

from edge.bundle import Bundle, load
from edge.errors import ModelError
from export import golden, pack
from export.features import at, maps, with_heatmap
from export.intervals import clopper_pearson
from export.tflite import write_tflite
from models.phone_glass.data import Set, SetSpec, make

HERE = Path(__file__).parent
_FITTED = SetSpec(seed=59, parts=300, shots=1, defect_share=0.7)
_MEASURED = SetSpec(seed=61, parts=300, shots=1, defect_share=0.7)
"""Series of parts that no other set uses."""
_FROM = 4.0
_EXAMPLES = 128


def shown(bundle: Bundle, fitted: Set, measured: Set) -> Bundle:
    """Return the bundle with a heat map.

    Args:
        bundle: without one.
        fitted: drawn parts that the layer is fitted to.
        measured: others, that its figures come from.

    Raises:
        ModelError: another output changed, or there is a heat map already.
    """
    spec, content = bundle.model("onnx")
    name = maps(content)[-1][0]
    weights, bias = _layer(at(content, name, fitted.values), fitted.cells)
    quantized = with_heatmap(content, spec, name, weights, bias, fitted.values[:_EXAMPLES])
    files = {
        "onnx": (quantized.shipped, quantized.spec),
        "tflite": write_tflite(quantized, bundle.manifest.models["tflite"].file),
    }
    pointed = {runtime: pointing(*file, measured) for runtime, file in files.items()}
    return _assembled(bundle, files, {"map": name, "layer": "logistic regression", "pointing": pointed})


def pointing(content: bytes, spec: Any, parts: Set) -> dict[str, Any]:
    """Return how often the warmest cell of a defective part lies on its defect or beside it."""
    chosen = np.flatnonzero(parts.cells.any((1, 2)))
    heat = golden.split(golden.answers(content, spec, parts.values[chosen]), spec).heatmap
    assert heat is not None
    near = maximum_filter(parts.cells[chosen], size=(1, 3, 3))
    warmest = heat.reshape(len(heat), -1).argmax(1)
    hits = near.reshape(len(near), -1)[np.arange(len(near)), warmest]
    low, high = clopper_pearson(float(hits.mean()), len(hits), 0.05)
    return {"parts": len(hits), "hit": round(float(hits.mean()), 4), "interval": [round(low, 4), round(high, 4)]}


def _layer(values: NDArray[np.float32], cells: NDArray[np.bool_]) -> tuple[NDArray[np.float32], float]:
    """Return weights (channels,) and offset for maps (n, channels, rows, columns) and cells (n, rows, columns)."""
    rows = values.transpose(0, 2, 3, 1).reshape(-1, values.shape[1])
    found = LogisticRegression(max_iter=300, class_weight="balanced").fit(rows, cells.ravel())
    return found.coef_[0].astype(np.float32), float(found.intercept_[0]) + _FROM


def _assembled(bundle: Bundle, written: dict[str, Any], figures: dict[str, Any]) -> Bundle:
    manifest, files = bundle.manifest, dict(bundle.files)
    extras: dict[str, str] = {}
    for runtime, (content, spec) in written.items():
        inputs, expected = bundle.golden(runtime)
        before = bundle.golden_extras(runtime)
        answers = golden.answers(content, spec, inputs)
        known = expected if before is None else np.concatenate([expected, before], 1)
        if not np.array_equal(answers[:, : known.shape[1]], known):
            raise ModelError(f"{runtime}: expected logits and features as they were, got others")
        files[spec.file] = content
        extras[runtime] = f"golden_extras_{runtime}.npy"
        files[extras[runtime]] = golden.as_npy(answers[:, expected.shape[1] :])
    export = {**manifest.metrics["export"], "heatmap": figures}
    sizes = {runtime: len(content) for runtime, (content, _) in written.items()}
    changed = manifest.model_copy(
        update={
            "models": {runtime: spec for runtime, (_, spec) in written.items()},
            "golden": manifest.golden.model_copy(update={"extras": extras}),
            "metrics": {**manifest.metrics, "export": {**export, "sizes_bytes": sizes}},
            "files": pack.file_entries(files),
        }
    )
    return Bundle(bundle.ref, changed, files)


def main(paths: list[Path]) -> None:
    """Change bundles in their places."""
    fitted, measured = make(_FITTED), make(_MEASURED)
    for path in paths:
        made = shown(load(path), fitted, measured)
        pack.write(made.manifest, dict(made.files), path)
        print(path.name, made.manifest.metrics["export"]["heatmap"], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m models.phone_glass.heatmap", description="Add heat maps.")
    parser.add_argument("bundles", nargs="*", type=Path, help="default: those beside this file")
    main(parser.parse_args().bundles or sorted(HERE.glob("*.lsb")))
