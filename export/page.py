"""Draws a bundle as one HTML page that needs nothing else: what it promises, how good it is, where it looked.

Rules:
- Everything comes from the bundle; what only the machine that made it knows (speed, notes) is handed in and optional.
- No script, no outside file: SVG and PNG stand in the page, text is escaped.
- A figure never stands without its interval and its number of examples where those are known.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import LinesideError
from edge.wire.manifest import ImageInput, InspectPolicy, KeywordPolicy
from export import charts, promise, sections, worst
from export.markup import bullets, section, table, text

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2430;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem;border-bottom:1px solid #d5dbe3}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.5rem 0}
td,th{padding:.2rem .7rem;text-align:left;border-bottom:1px solid #e8ecf1;vertical-align:top}th{font-weight:600}
.n{text-align:right}.dim{color:#5b6675}
.yes{color:#0a6b3d}.no{color:#b3261e;font-weight:600}.row{display:flex;flex-wrap:wrap;gap:.4rem 1.5rem}
code{font-size:.85em}figure{margin:0}figcaption{font-size:.85rem;color:#5b6675}svg{max-width:100%;height:auto}
ul{padding-left:1.2rem}img{image-rendering:auto;border-radius:3px}
.wide{overflow-x:auto}h3{font-size:1rem;margin:1rem 0 .2rem}
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
        f"<h1>{text(ref.name)} {text(ref.version)}</h1>",
        f'<p class="dim">{text(manifest.description)} · {ref.size_bytes:,} bytes · made from data of '
        f"{text(manifest.created_at)}<br><code>{ref.digest}</code></p>",
        section("What it promises", _promise(bundle)),
        section("The data", sections.data(manifest.metrics.get("data"), extras.get("warnings", []))),
        section("Scores and thresholds", _curves(bundle)),
        section("Calibration", _calibration(bundle.manifest.metrics)),
        section("Figures", sections.figures(manifest.metrics)),
        section("Against simple models", sections.simple(manifest.metrics.get("simple"))),
        section("Where it looked", _pictures(extras.get("pictures", [])) or _heat(bundle)),
        section("Audit", _audit(manifest.audit)),
        section("Quantization", sections.quantization(manifest.metrics.get("export", {}))),
        section("Size and speed", _speed(bundle, extras)),
        section("Gate, drift, strangers", _gate(bundle)),
        section("Where it comes from", _lineage(bundle, extras)),
    ]
    title = f"{text(ref.name)} {text(ref.version)}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def _promise(bundle: Bundle) -> str:
    policy, advice = bundle.manifest.policy, bundle.manifest.metrics.get("advice", [])
    how = "" if policy.guarantee is None else "; ".join(filter(None, [policy.guarantee.method, policy.guarantee.note]))
    note = f'<p class="dim">{text(how)}</p>' if how else ""
    numbers = text(promise.thresholds_in_words(policy))
    return f"{bullets(promise.promise_in_words(bundle))}<p>Thresholds: {numbers}.</p>{note}{bullets(advice)}"


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
    method = text(found.get("method", "unknown"))
    note = f'<p class="dim">Method: {method}; fitted on other examples than those drawn, by the quantized network.</p>'
    return f'<div class="row">{"".join(figures)}</div>{note}'


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    head = ["true \\ named", *labels]
    rows = [[label, *(f"{count:,}" for count in row)] for label, row in zip(labels, counts, strict=True)]
    return table(head, rows)


def _pictures(pictures: Sequence[Mapping[str, str]]) -> str:
    """Return the worst examples, by what is wrong with them."""
    parts = []
    for title in dict.fromkeys(one["title"] for one in pictures):
        figures = "".join(
            f'<figure><img src="data:image/png;base64,{one["png"]}" width="280" alt="{text(one["words"])}">'
            f"<figcaption>{text(one['words'])}</figcaption></figure>"
            for one in pictures
            if one["title"] == title
        )
        parts.append(f'<p><b>{text(title)}</b></p><div class="row">{figures}</div>')
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
    limits = table(["limit", "figure", "95 % interval", "", "why"], rows) if rows else ""
    untested = "<p>Not tested:</p>" + bullets(audit.get("not_tested", []))
    seen = f"{audit['examples']:,} examples, {audit['groups']:,} groups; " if audit.get("examples") else ""
    base = f"{seen}{audit.get('judged_by', '')}"
    return f'<p class="{kind}">The audit: {words}.</p><p class="dim">{text(base)}</p>{limits}{untested}'


def _speed(bundle: Bundle, extras: Mapping[str, Any]) -> str:
    speeds = extras.get("speeds")
    if not speeds:
        rows = [
            [name, spec.precision, f"{len(bundle.files[spec.file]):,}"] for name, spec in bundle.manifest.models.items()
        ]
        return table(["engine", "precision", "bytes"], rows)
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
    files = table(["file", "bytes", "p50 ms", "p99 ms", "memory MiB"], rows)
    macs = f"<p>{extras['macs'] / 1e6:,.1f} million multiplications an inference.</p>" if "macs" in extras else ""
    words = [str(extras[name]) for name in ("prefer", "estimate") if name in extras]
    note = '<p class="dim">Measured where the bundle was made: one thread, one input at a time, bursts in turns.</p>'
    return files + macs + bullets(words) + note


def _gate(bundle: Bundle) -> str:
    manifest = bundle.manifest
    rows = [[name, _number(limit.min), _number(limit.max)] for name, limit in manifest.gate.items()]
    gate = table(["input metric", "at least", "at most"], rows) if rows else "<p>No gate.</p>"
    drawn = "".join(
        f"<figure>{charts.reference(found.edges, found.counts)}<figcaption>{text(name)}</figcaption></figure>"
        for name, found in manifest.reference.items()
        if len(found.edges) > 1
    )
    ood = manifest.out_of_distribution
    stranger = (
        f"<p>Unlike what it knows ({ood.method}): score above {ood.limit:.4g}; {ood.false_alarm_rate:.2%} of known "
        f"inputs of {ood.n} {promise.plural(ood.unit)} score higher. {text(ood.note)}</p>"
        if ood is not None
        else "<p>It cannot tell what is unlike all that it knows: the network gives no features.</p>"
    )
    kinds = manifest.metrics.get("export", {}).get("out_of_distribution", {}).get("found", {})
    found = (
        table(["made strange", "told apart"], [[kind, f"{share:.0%}"] for kind, share in kinds.items()])
        if kinds
        else ""
    )
    return f'{gate}{stranger}{found}<div class="row">{drawn}</div>'


def _lineage(bundle: Bundle, extras: Mapping[str, Any]) -> str:
    rows = [[str(k), v if isinstance(v, str) else json.dumps(v)] for k, v in bundle.manifest.lineage.items()]
    if "run" in extras:
        rows.append(["run", str(extras["run"])])
    return table(["", ""], rows) if rows else "<p>Nothing is known of it.</p>"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _mebibytes(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 2**20:.1f}"
