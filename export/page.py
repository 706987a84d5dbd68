"""Draws a bundle as one HTML page that needs nothing else: what it promises, how good it is, where it looked.

Rules:
- Everything comes from the bundle; what only the machine that made it knows (speed, notes) is handed in and optional.
- No script, no outside file: SVG and PNG stand in the page, text is escaped.
- A figure never stands without its interval and its number of examples where those are known.
"""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import LinesideError
from edge.wire.manifest import Guarantee, ImageInput, InspectPolicy, KeywordPolicy
from export import charts, worst

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0}
td,th{padding:.2rem .7rem;text-align:left;border-bottom:1px solid #e8ecf1;vertical-align:top}th{font-weight:600}
.n{text-align:right}.dim{color:#5b6675}
.yes{color:#0a6b3d}.no{color:#b3261e;font-weight:600}.row{display:flex;flex-wrap:wrap;gap:1.5rem}code{font-size:.85em}
figure{margin:0}figcaption{font-size:.85rem;color:#5b6675}svg{max-width:100%;height:auto}
ul{padding-left:1.2rem}img{image-rendering:auto;border-radius:3px}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#dfe5ec}h2{border-color:#313a46}td,th{border-color:#28303a}
.dim,figcaption{color:#9aa7b6}.yes{color:#5ad08f}.no{color:#ff8a80}}
"""


def render(bundle: Bundle, extras: Mapping[str, Any] | None = None) -> str:
    """Return the page.

    Args:
        bundle: what is shown.
        extras: what only its maker knows: `speeds`, `macs`, `prefer`, `estimate`, `warnings`, `run`, `pictures`.
    """
    extras = extras or {}
    manifest, ref = bundle.manifest, bundle.ref
    parts = [
        f"<h1>{_text(ref.name)} {_text(ref.version)}</h1>",
        f'<p class="dim">{_text(manifest.description)} · {ref.size_bytes:,} bytes · made from data of '
        f"{_text(manifest.created_at)}<br><code>{ref.digest}</code></p>",
        _section("What it promises", _promise(bundle)),
        _section("What was noticed", _list(extras.get("warnings", []))),
        _section("Scores and thresholds", _curves(bundle)),
        _section("Calibration", _calibration(bundle.manifest.metrics)),
        _section("Figures", _figures(manifest.metrics)),
        _section("Against simple models", _simple(manifest.metrics.get("simple"))),
        _section("Where it looked", _pictures(extras.get("pictures", [])) or _heat(bundle)),
        _section("Audit", _audit(manifest.audit)),
        _section("Size and speed", _speed(bundle, extras)),
        _section("Gate, drift, strangers", _gate(bundle)),
        _section("Where it comes from", _lineage(bundle, extras)),
    ]
    title = f"{_text(ref.name)} {_text(ref.version)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def promise_in_words(bundle: Bundle) -> list[str]:
    """Return the guarantee as sentences."""
    policy = bundle.manifest.policy
    guarantee = policy.guarantee
    if guarantee is None:
        return ["Nothing is promised: the thresholds were not proven on data."]
    sure = f"{1 - guarantee.delta:.0%}"
    decided = (
        f"It decided {guarantee.coverage:.1%} of {guarantee.n:,} {_plural(guarantee.unit)} alone, a person the rest."
    )
    if isinstance(policy, InspectPolicy):
        promised = [
            _side("passes by itself", "defective", guarantee.alpha_escape, proven=policy.pass_max >= 0),
            _side("diverts by itself", "good", guarantee.alpha_false_reject, proven=policy.divert_min <= 1),
        ]
    elif isinstance(policy, KeywordPolicy):
        promised = [_side("accepts", "wrong", guarantee.alpha_error, proven=policy.accept_min <= 1)]
    else:
        promised = [
            _side("passes by itself", "defective", guarantee.alpha_escape, proven=True),
            _side("diverts by itself", "good", guarantee.alpha_false_reject, proven=True),
        ]
    return [f"With confidence {sure}:", *promised, decided, *_notes(guarantee)]


def _side(verb: str, wrong: str, alpha: float | None, *, proven: bool) -> str:
    if alpha is None:
        return f"nothing is said about what it {verb}"
    if not proven:
        return f"it {verb} nothing: at most {alpha:.2%} {wrong} could not be proven"
    return f"of what it {verb}, at most {alpha:.2%} is {wrong}"


def _notes(guarantee: Guarantee) -> list[str]:
    return [note.strip() for note in [guarantee.method, *guarantee.note.split(";")] if note.strip()]


def _promise(bundle: Bundle) -> str:
    policy = bundle.manifest.policy
    if isinstance(policy, InspectPolicy):
        numbers = f"pass at a defect score of at most {policy.pass_max:g}, divert from {policy.divert_min:g} on"
    elif isinstance(policy, KeywordPolicy):
        numbers = f"accept from a probability of {policy.accept_min:g} on"
    else:
        numbers = "; ".join(
            f"{k}: free up to {v.pass_max:g}, found from {v.divert_min:g} on" for k, v in policy.labels.items()
        )
    advice = bundle.manifest.metrics.get("advice", [])
    return f"{_list(promise_in_words(bundle))}<p>Thresholds: {numbers}.</p>{_list(advice)}"


def _curves(bundle: Bundle) -> str:
    curves = bundle.manifest.metrics.get("curves")
    if not curves:
        return ""
    policy = bundle.manifest.policy
    if isinstance(policy, InspectPolicy):
        marks = {"pass": policy.pass_max, "divert": policy.divert_min}
        axis = "defect score, 1 − p(good)"
    else:
        assert isinstance(policy, KeywordPolicy)
        marks, axis = {"accept": policy.accept_min}, "probability of the likeliest label"
    scores = charts.histogram(curves["scores"], marks, axis)
    reliable = charts.reliability(curves["reliability"])
    confusion = _confusion(bundle.manifest.labels, curves["confusion"])
    return (
        f'<div class="row"><figure>{scores}<figcaption>Scores of examples never seen; the height is the root of the '
        f"count. Between the lines a person decides.</figcaption></figure><figure>{reliable}<figcaption>Reliability: "
        f"right answers against the probability claimed; on the diagonal a claim holds.</figcaption></figure></div>"
        f"{confusion}"
    )


def _calibration(metrics: Mapping[str, Any]) -> str:
    """Return the reliability before and after, on the examples that proved the thresholds."""
    found = metrics.get("export", {}).get("calibration", {})
    heldout = found.get("heldout")
    if not heldout:
        return ""
    figures = []
    for name in ("before", "after"):
        points = [{"confidence": p[0], "right": p[1], "count": p[2]} for p in heldout.get(f"reliability_{name}", [])]
        words = f"{name}: expected error {heldout[f'ece_{name}']:.3f}, log loss {heldout[f'nll_{name}']:.3f}"
        figures.append(f"<figure>{charts.reliability(points)}<figcaption>{words}</figcaption></figure>")
    method = _text(found.get("method", "unknown"))
    note = f'<p class="dim">Method: {method}; fitted on other examples than those drawn, by the quantized network.</p>'
    return f'<div class="row">{"".join(figures)}</div>{note}'


def _confusion(labels: Sequence[str], table: Sequence[Sequence[int]]) -> str:
    head = ["true \\ named", *labels]
    rows = [[label, *(f"{count:,}" for count in row)] for label, row in zip(labels, table, strict=True)]
    return _table(head, rows)


def _figures(metrics: Mapping[str, Any]) -> str:
    judged = metrics.get("judged")
    if not judged:
        found = metrics.get("export", {}).get("heldout") or {k: v for k, v in metrics.items() if k != "export"}
        return _table(["figure", "value"], [[str(k), json.dumps(v)] for k, v in found.items()]) if found else ""
    auroc = f"<p>AUROC, good against the rest: <b>{judged['auroc']}</b></p>" if judged.get("auroc") is not None else ""
    whole = _table(
        ["all", "value", "95 % interval", "n"], [[name, *_cells(value)] for name, value in judged["whole"].items()]
    )
    classes = _grid("class", judged["classes"])
    slices = "".join(_grid(column, rows) for column, rows in judged["slices"].items())
    return auroc + whole + classes + slices


def _grid(name: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = list(next(iter(rows.values())))
    body = []
    for label, values in rows.items():
        cells = [label]
        for column in columns:
            value, interval, count = _cells(values[column])
            cells.append(f"{value} ({interval}) of {count}")
        body.append(cells)
    return _table([name, *columns], body)


def _cells(found: Mapping[str, Any]) -> list[str]:
    if found["value"] is None:
        return ["–", "–", "0"]
    return [f"{found['value']:.2%}", f"{found['low']:.2%}–{found['high']:.2%}", f"{found['total']:,}"]


def _simple(simple: Mapping[str, Any] | None) -> str:
    if not simple:
        return ""
    rows = [
        [name.replace("_", " "), str(value.get("accuracy")), str(value.get("auroc"))]
        for name, value in simple.items()
        if isinstance(value, dict)
    ]
    answer = (
        '<p class="yes">The network beats them.</p>'
        if simple["beats_simple"]
        else '<p class="no">The network does not beat them: it learned nothing that simple features do not show.</p>'
    )
    return _table(["model", "accuracy", "AUROC"], rows) + answer


def _pictures(pictures: Sequence[Mapping[str, str]]) -> str:
    """Return the worst examples, by what is wrong with them."""
    parts = []
    for title in dict.fromkeys(one["title"] for one in pictures):
        figures = "".join(
            f'<figure><img src="data:image/png;base64,{one["png"]}" width="280" alt="{_text(one["words"])}">'
            f"<figcaption>{_text(one['words'])}</figcaption></figure>"
            for one in pictures
            if one["title"] == title
        )
        parts.append(f'<p><b>{_text(title)}</b></p><div class="row">{figures}</div>')
    note = '<p class="dim">Scores by a network that never saw the picture; red is the shipped network\'s evidence.</p>'
    return "".join(parts) + note if parts else ""


def _heat(bundle: Bundle) -> str:
    """Return the golden pictures with the evidence of defects over them."""
    if not isinstance(bundle.manifest.input, ImageInput):
        return ""
    try:
        made = _heatmaps(bundle)
    except LinesideError:
        return ""
    if made is None:
        return ""
    reach = worst.span([heat for _, heat, _ in made])
    figures = [
        f'<figure><img src="data:image/png;base64,{worst.png(worst.overlaid(picture, heat, reach))}" '
        'width="260" alt="evidence">'
        f"<figcaption>example {number + 1}: p(good) {good:.2f}</figcaption></figure>"
        for number, (picture, heat, good) in enumerate(made)
    ]
    note = '<p class="dim">Golden examples, kept coarse in the bundle; red is evidence of a defect.</p>'
    return f'<div class="row">{"".join(figures)}</div>{note}'


def _heatmaps(bundle: Bundle) -> list[tuple[NDArray[np.uint8], NDArray[np.float32], float]] | None:
    from edge.calibrate import probabilities
    from export import golden

    spec, content = bundle.model("onnx" if "onnx" in bundle.manifest.models else bundle.manifest.prefer)
    if spec.heatmap is None:
        return None
    inputs = np.asarray(bundle.golden(spec.runtime)[0])[:6]
    answers = golden.split(golden.answers(content, spec, inputs), spec)
    chances = probabilities(answers.logits, bundle.manifest.calibration)
    good = bundle.manifest.labels.index("good") if "good" in bundle.manifest.labels else 0
    assert answers.heatmap is not None
    return [(inputs[i].astype(np.uint8), answers.heatmap[i], float(chances[i][good])) for i in range(len(inputs))]


def _audit(audit: Mapping[str, Any]) -> str:
    if not audit:
        return "<p>No audit was made.</p>"
    words = {None: "no limits were agreed", True: "passed", False: "failed"}[audit.get("passed")]
    kind = "yes" if audit.get("passed") else "no" if audit.get("passed") is False else "dim"
    rows = [
        [
            row["limit"],
            "" if row.get("value") is None else f"{row['value']:.4f}",
            f"{row['low']:.4f}–{row['high']:.4f}" if "low" in row else "",
            "passed" if row["passed"] else "FAILED",
            row.get("why", ""),
        ]
        for row in audit.get("limits", [])
    ]
    table = _table(["limit", "figure", "95 % interval", "", "why"], rows) if rows else ""
    untested = "<p>Not tested:</p>" + _list(audit.get("not_tested", []))
    base = f"{audit.get('examples', 0):,} examples, {audit.get('groups', 0):,} groups; {audit.get('judged_by', '')}"
    return f'<p class="{kind}">The audit: {words}.</p><p class="dim">{_text(base)}</p>{table}{untested}'


def _speed(bundle: Bundle, extras: Mapping[str, Any]) -> str:
    speeds = extras.get("speeds")
    if not speeds:
        rows = [
            [name, spec.precision, f"{len(bundle.files[spec.file]):,}"] for name, spec in bundle.manifest.models.items()
        ]
        return _table(["engine", "precision", "bytes"], rows)
    rows = [
        [
            "float network" if name == "float network" else s["name"],
            f"{s['size_bytes']:,}",
            f"{s['p50_ms']:.3f}",
            f"{s['p99_ms']:.3f}",
            _mebibytes(s["peak_memory_bytes"]),
        ]
        for name, s in speeds.items()
    ]
    table = _table(["file", "bytes", "p50 ms", "p99 ms", "memory MiB"], rows)
    macs = f"<p>{extras['macs'] / 1e6:,.1f} million multiplications an inference.</p>" if "macs" in extras else ""
    words = [str(extras[name]) for name in ("prefer", "estimate") if name in extras]
    note = '<p class="dim">Measured where the bundle was made: one thread, one input at a time, bursts in turns.</p>'
    return table + macs + _list(words) + note


def _gate(bundle: Bundle) -> str:
    manifest = bundle.manifest
    rows = [[name, _number(limit.min), _number(limit.max)] for name, limit in manifest.gate.items()]
    table = _table(["input metric", "at least", "at most"], rows) if rows else "<p>No gate.</p>"
    drawn = "".join(
        f"<figure>{charts.reference(found.edges, found.counts)}<figcaption>{_text(name)}</figcaption></figure>"
        for name, found in manifest.reference.items()
        if len(found.edges) > 1
    )
    ood = manifest.out_of_distribution
    stranger = (
        f"<p>Unlike what it knows ({ood.method}): score above {ood.limit:.4g}; {ood.false_alarm_rate:.2%} of known "
        f"inputs of {ood.n} {_plural(ood.unit)} score higher. {_text(ood.note)}</p>"
        if ood is not None
        else "<p>It cannot tell what is unlike all that it knows: the network gives no features.</p>"
    )
    kinds = manifest.metrics.get("export", {}).get("out_of_distribution", {}).get("found", {})
    found = (
        _table(["made strange", "told apart"], [[kind, f"{share:.0%}"] for kind, share in kinds.items()])
        if kinds
        else ""
    )
    return f'{table}{stranger}{found}<div class="row">{drawn}</div>'


def _lineage(bundle: Bundle, extras: Mapping[str, Any]) -> str:
    rows = [[str(k), v if isinstance(v, str) else json.dumps(v)] for k, v in bundle.manifest.lineage.items()]
    if "run" in extras:
        rows.append(["run", str(extras["run"])])
    return _table(["", ""], rows) if rows else "<p>Nothing is known of it.</p>"


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>{body}" if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _list(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _mebibytes(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 2**20:.1f}"


def _plural(unit: str) -> str:
    return f"{unit}s"


def _text(value: str) -> str:
    return html.escape(str(value))
