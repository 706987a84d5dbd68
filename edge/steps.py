"""The pipeline's steps between a window and its judgement, the same for the daemon, `infer` and `replay`.

Rules:
- Each step takes the work and the result of the step before; what goes wrong leaves as `Unjudged` with its reason.
- A failure of the engine is noted on the work, so that serving can take the bundle back.
"""

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge import decide as rules
from edge import gate as input_gate
from edge import ood
from edge.calibrate import calibrated
from edge.errors import DeadlineError, ModelError
from edge.preprocess import preprocess as values_of
from edge.preprocess import to_model
from edge.recognised import text_of
from edge.values import Judgement
from edge.where import peaks
from edge.wire.manifest import ImageInput
from edge.wire.rows import Peak
from edge.work import Unjudged, Work


def judge(work: Work, draw: Callable[[], float] = lambda: 1.0) -> Judgement:
    """Take a window all the way to its judgement, without recording or acting."""
    try:
        gate(work)
        tensor = preprocess(work)
        logits = infer(work, tensor)
        recognise(work)
        return decide(work, calibrate(work, logits), draw, in_budget=True)
    except Unjudged as why:
        return defer(work, why, in_budget=True)


def gate(work: Work, engine_problem: str | None = None) -> None:
    """Measure the input and stop what must not be judged."""
    if work.window.data is None:
        raise Unjudged("bad_input", work.window.problem or "no data")
    if work.engine is None:
        raise Unjudged("model_error", engine_problem or "no bundle")
    with work.step("gate"):
        checked = input_gate.check(work.window, work.engine.manifest)
    work.metrics = checked.metrics
    if checked.problem is not None:
        raise Unjudged("bad_input", checked.problem)


def preprocess(work: Work) -> NDArray[np.generic]:
    """Return the tensor that the network takes."""
    engine = work.loaded
    with work.step("preprocess"):
        values = values_of(work.window.data, work.window.sample_rate_hz, engine.manifest.input)
        return to_model(values, engine.spec.input)


def infer(work: Work, tensor: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return the logits, shape (labels,); what else the network gives is kept on the work."""
    work.tensor = tensor
    try:
        with work.step("infer"):
            answer = work.loaded.session.infer(tensor)
    except ModelError as error:
        work.engine_failure = str(error)
        raise Unjudged("deadline" if isinstance(error, DeadlineError) else "model_error", str(error)) from error
    labels = len(work.loaded.manifest.labels)
    if len(answer) == labels:
        return answer
    work.extras = answer[labels:]
    if work.loaded.spec.text is not None:
        work.text = text_of(work.extras[-work.loaded.spec.text.shape[1] :])
    return answer[:labels]


def recognise(work: Work) -> None:
    """Stop an input that is unlike all that the network was made for, if the bundle says what that is."""
    known = work.loaded.known
    if known is None or work.extras is None:
        return
    with work.step("recognise"):
        value = work.metrics["ood"] = ood.score(work.extras[: known.matrix.shape[1]], known)
    if ood.is_strange(value, known):
        words = f"unlike all that the model was made for: score {value:.3g}, limit {known.limit:.3g}"
        raise Unjudged("out_of_distribution", words)


def calibrate(work: Work, logits: NDArray[np.float32]) -> list[float]:
    """Return the calibrated probabilities, one per label."""
    try:
        with work.step("calibrate"):
            return calibrated(logits.tolist(), work.loaded.manifest.calibration)
    except ModelError as error:
        work.engine_failure = str(error)
        raise Unjudged("model_error", str(error)) from error


def decide(work: Work, scores: list[float], draw: Callable[[], float], *, in_budget: bool) -> Judgement:
    """Return the judgement, unless the deadline is past: a late answer is not acted on."""
    settings = work.settings
    with work.step("decide"):
        judgement = rules.judge(scores, work.loaded.manifest, settings, draw, in_budget=in_budget)
    work.judged, work.late = True, work.elapsed_ms > settings.deadline_ms
    if work.late:
        raise Unjudged("deadline", f"took {work.elapsed_ms:.0f} ms, deadline {settings.deadline_ms:.0f} ms")
    return judgement


def where(work: Work, judgement: Judgement) -> list[Peak] | None:
    """Return where the network looked, None for a clear pass or if it cannot say."""
    picture, heatmap = work.window.data, work.loaded.spec.heatmap if work.engine is not None else None
    clear = judgement.verdict == "pass" and judgement.reason is None
    if clear or heatmap is None or work.extras is None or picture is None:
        return None
    spec = work.loaded.manifest.input
    if not isinstance(spec, ImageInput):
        return None
    rows, columns = heatmap.shape[1:]
    values = work.extras[len(work.extras) - rows * columns :].reshape(rows, columns)
    return peaks(values, spec, picture.shape[1], picture.shape[0])


def features(work: Work) -> bytes | None:
    """Return the network's own features of a window as a file of `FEATURES_MEDIA_TYPE`, None if it gave none."""
    spec = work.engine.spec.features if work.engine is not None else None
    if spec is None or work.extras is None:
        return None
    file = io.BytesIO()
    np.lib.format.write_array(file, work.extras[: math.prod(spec.shape)].astype(np.float32), version=(1, 0))
    return file.getvalue()


def defer(work: Work, why: Unjudged, *, in_budget: bool) -> Judgement:
    """Return the deferral of a window that could not be judged."""
    return rules.defer(why.reason, str(why), work.settings, in_budget=in_budget)
