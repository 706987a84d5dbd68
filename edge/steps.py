"""The pipeline's steps between a window and its judgement, the same for the daemon, `infer` and `replay`.

Rules:
- Each step takes the work and the result of the step before; what goes wrong leaves as `Unjudged` with its reason.
- A failure of the engine is noted on the work, so that serving can take the bundle back.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edge import decide as rules
from edge import gate as input_gate
from edge.calibrate import probabilities
from edge.errors import DeadlineError, ModelError
from edge.preprocess import preprocess as values_of
from edge.preprocess import to_model
from edge.values import Judgement
from edge.work import Unjudged, Work


def judge(work: Work, draw: Callable[[], float] = lambda: 1.0) -> Judgement:
    """Take a window all the way to its judgement, without recording or acting."""
    try:
        gate(work)
        tensor = preprocess(work)
        logits = infer(work, tensor)
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
    """Return the logits, shape (labels,)."""
    try:
        with work.step("infer"):
            return work.loaded.session.infer(tensor)
    except ModelError as error:
        work.engine_failure = str(error)
        raise Unjudged("deadline" if isinstance(error, DeadlineError) else "model_error", str(error)) from error


def calibrate(work: Work, logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the calibrated probabilities, shape (labels,)."""
    try:
        with work.step("calibrate"):
            return probabilities(logits, work.loaded.manifest.calibration)
    except ModelError as error:
        work.engine_failure = str(error)
        raise Unjudged("model_error", str(error)) from error


def decide(work: Work, scores: NDArray[np.float64], draw: Callable[[], float], *, in_budget: bool) -> Judgement:
    """Return the judgement, unless the deadline is past: a late answer is not acted on."""
    settings = work.settings
    with work.step("decide"):
        judgement = rules.judge(scores, work.loaded.manifest, settings, draw, in_budget=in_budget)
    work.judged, work.late = True, work.elapsed_ms > settings.deadline_ms
    if work.late:
        raise Unjudged("deadline", f"took {work.elapsed_ms:.0f} ms, deadline {settings.deadline_ms:.0f} ms")
    return judgement


def defer(work: Work, why: Unjudged, *, in_budget: bool) -> Judgement:
    """Return the deferral of a window that could not be judged."""
    return rules.defer(why.reason, str(why), work.settings, in_budget=in_budget)
