"""Draws those sections of a bundle's page that are made of figures: data, quality, comparison, quantization. Pure.

Rules:
- A figure never stands without its interval and its number of examples where those are known.
- What a recipe measured in its own way is laid out as it is; nothing that the bundle knows stays hidden.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from export.grids import grids
from export.markup import bullets, table, text

_DRAWN = {"judged", "curves", "simple", "advice", "data", "learns_ten", "export", "worst"}
"""Metrics that have a place of their own on the page."""
_MISSED = {
    "doubted_labels": "Labels that look wrong",
    "contradicting_duplicates": "The same file under two labels",
}


def data(found: Mapping[str, Any] | None, warnings: Sequence[str]) -> str:
    """Return what the checks found in the folder."""
    if not found:
        return bullets(warnings)
    counts = ", ".join(f"{count:,} {label}" for label, count in found["classes"].items())
    unit = "part" if found["groups"] == found["files"] else found["unit"]
    head = f"{found['files']:,} files: {counts}; {found['groups']:,} independent {unit}s, {found['masks']:,} masks."
    doubted = [
        [one["file"], one["label"], one["looks_like"], f"{one['p_label']:.2%}"] for one in found["doubted_labels"]
    ]
    doubts = table(["file", "label", "looks like", "probability of its label"], doubted) if doubted else ""
    twice = [" = ".join(files) for files in found["contradicting_duplicates"]]
    parts = {"doubted_labels": doubts, "contradicting_duplicates": bullets(twice)}
    lists = "".join(f"<h3>{_MISSED[name]}</h3>{body}" for name, body in parts.items() if body)
    return f"<p>{text(head)}</p>{bullets(warnings)}{lists}"


def figures(metrics: Mapping[str, Any]) -> str:
    """Return how good it is: by class and slice where it was judged by `fit` or an audit, else as it was measured."""
    judged = metrics.get("judged")
    drawn = "" if judged else _row(_grids("held-out examples", metrics.get("export", {}).get("heldout", {})))
    if judged:
        auroc = judged.get("auroc")
        drawn = f"<p>AUROC, good against the rest: <b>{auroc}</b></p>" if auroc is not None else ""
        rows = [[name, *_cells(value)] for name, value in judged["whole"].items()]
        drawn += table(["all", "value", "95 % interval", "n"], rows)
        drawn += _by("class", judged["classes"])
        drawn += "".join(_by(column, rows) for column, rows in judged["slices"].items())
    own = {name: value for name, value in metrics.items() if name not in _DRAWN}
    nested = {name: value for name, value in own.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in own.items() if name not in nested}
    measured = _grids("measured", plain) + "".join(_grids(name, value) for name, value in nested.items())
    return drawn + _row(measured)


def simple(found: Mapping[str, Any] | None) -> str:
    """Return the network beside the models that anybody could have had."""
    if not found:
        return ""
    rows = [
        [name.replace("_", " "), str(value.get("accuracy")), str(value.get("auroc"))]
        for name, value in found.items()
        if isinstance(value, dict)
    ]
    answer = (
        '<p class="yes">The network beats them.</p>'
        if found["beats_simple"]
        else '<p class="no">The network does not beat them: it learned nothing that simple features do not show.</p>'
    )
    return table(["model", "accuracy", "AUROC"], rows) + answer


def quantization(exported: Mapping[str, Any]) -> str:
    """Return what int8 costs, which layers stayed float, and how far the two formats are apart."""
    found = exported.get("quantization")
    if not found:
        return ""
    if found.get("precision") == "float32":
        return bullets(["nothing is quantized: the float network ships, since it was measured to be worth it"])
    words = []
    if "lost" in found:
        words.append(
            f"accuracy {found['float_accuracy']:.2%} in float, {found['int8_accuracy']:.2%} in int8: lost "
            f"{100 * found['lost']:.2f} points, 95 % interval {100 * found['low']:.2f} to {100 * found['high']:.2f}, "
            f"{found['count']:,} examples"
        )
    words.append(f"the same label as in float for {found['agreement']:.2%}; logits {found['logit_error']:.3f} apart")
    if "ranges" in found:
        tried = ", ".join(f"{name} {one['accuracy']:.2%}" for name, one in found["ranges_tried"].items())
        words.append(f"ranges taken by {found['ranges']}" + (f", by accuracy on the pilot: {tried}" if tried else ""))
    kept = found.get("kept_float")
    words.append(f"layers that stayed float: {', '.join(kept)}" if kept else "no layer had to stay float")
    if "onnx_only" in found:
        words.append(f"ONNX only: {found['onnx_only']}")
    between = exported.get("parity", {})
    if between:
        same = between.get("same_decision_share", between["same_label_share"])
        words.append(f"ONNX and TFLite take {same:.2%} of the decisions alike, {between['max_steps']:g} steps apart")
    return bullets(words)


def _by(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = list(next(iter(rows.values())))
    body = []
    for label, values in rows.items():
        cells = [label]
        cells += [_short(values[column]) for column in columns]
        body.append(cells)
    return table([name, *columns], body)


def _short(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    return f"{found['value']:.1%} ({100 * found['low']:.1f}–{100 * found['high']:.1f}) of {found['total']:,}"


def _cells(found: Mapping[str, Any]) -> list[str]:
    if found["value"] is None:
        return ["–", "–", "0"]
    return [f"{found['value']:.2%}", f"{found['low']:.2%}–{found['high']:.2%}", f"{found['total']:,}"]


def _row(body: str) -> str:
    return f'<div class="row">{body}</div>' if body else ""


def _grids(title: str, found: Mapping[str, Any]) -> str:
    drawn = grids(title.replace("_", " "), found)
    return "".join(f"<div><h3>{text(grid.title)}</h3>{table(grid.head, grid.lines)}</div>" for grid in drawn)
