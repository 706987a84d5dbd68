"""Measures a finished bundle on inputs with known truth, by the very steps of a device: gate to verdict.

Rules:
- Only what is in the bundle is used: its gate, preprocessing, file, calibration and thresholds.
- What the gate refuses is a deferral, as on a device.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from edge.bundle import Bundle
from edge.calibrate import calibrated
from edge.decide import defer, judge
from edge.gate import check
from edge.ood import is_strange, score
from edge.preprocess import audio_tensor, image_tensor, to_model
from edge.runtimes import open_session
from edge.values import Judgement, StationSettings, Window
from edge.wire.manifest import ImageInput

_SETTINGS = StationSettings(station="audit")


def judgements(bundle: Bundle, windows: Iterable[Window], runtime: str | None = None) -> Iterator[Judgement]:
    """Yield what a station in mode `partial` would make of each window.

    Args:
        bundle: the bundle to measure.
        windows: pictures or sounds.
        runtime: the engine; the bundle's preferred one if not given.

    Raises:
        ModelError: the engine does not take the file.
    """
    spec, model = bundle.model(runtime or bundle.manifest.prefer)
    labels, known = len(bundle.manifest.labels), bundle.ood_reference(spec.runtime)
    session = open_session(spec.runtime, model, spec, threads=1)
    try:
        for window in windows:
            checked = check(window, bundle.manifest)
            if checked.problem is not None:
                yield defer("bad_input", checked.problem, _SETTINGS, in_budget=True)
                continue
            answer = session.infer(to_model(_values(window, bundle), spec.input))
            if known is not None and is_strange(score(answer[labels : labels + known.matrix.shape[1]], known), known):
                yield defer("out_of_distribution", "unlike what the model was made for", _SETTINGS, in_budget=True)
                continue
            chances = calibrated(answer[:labels].tolist(), bundle.manifest.calibration)
            yield judge(chances, bundle.manifest, _SETTINGS, lambda: 1.0, in_budget=True)
    finally:
        session.close()


def inspection_figures(made: Sequence[Judgement], truth: Sequence[str], good: str = "good") -> dict[str, Any]:
    """Return shares over inspected parts: deferrals by reason, and errors among automated decisions.

    Args:
        made: one judgement per part.
        truth: the true label of each.
        good: the label of a good part.
    """
    count = len(made)
    pairs = list(zip(made, truth, strict=True))
    passed = [label for item, label in pairs if item.verdict == "pass"]
    diverted = [label for item, label in pairs if item.verdict == "divert"]
    escapes, false_rejects = sum(label != good for label in passed), diverted.count(good)
    named = [item.label == label for item, label in pairs if item.label is not None]
    return {
        "count": count,
        "accuracy": _share(sum(named), len(named)),
        "automated": _share(len(passed) + len(diverted), count),
        "unsure": _share(sum(item.reason == "unsure" for item in made), count),
        "bad_input": _share(sum(item.reason == "bad_input" for item in made), count),
        "out_of_distribution": _share(sum(item.reason == "out_of_distribution" for item in made), count),
        "escapes": escapes,
        "escape_share": _share(escapes, len(passed)),
        "false_rejects": false_rejects,
        "false_reject_share": _share(false_rejects, len(diverted)),
        "wrong_share": _share(escapes + false_rejects, len(passed) + len(diverted)),
    }


def _values(window: Window, bundle: Bundle) -> Any:
    spec = bundle.manifest.input
    assert window.data is not None
    if isinstance(spec, ImageInput):
        return image_tensor(window.data, spec)
    return audio_tensor(window.data, window.sample_rate_hz or spec.sample_rate_hz, spec)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
