"""From calibrated probabilities to a verdict and an action: pure, all thresholds from the bundle's policy.

Rules:
- Inspection: d = 1 − p(good); d ≤ pass_max passes, d ≥ divert_min is diverted, between them is `unsure`.
- Keywords: the likeliest label is accepted if p ≥ accept_min.
- Ties go to the lowest label index, so that engines that agree on scores agree on labels.
- An audit never changes a verdict or an action: it marks a confident decision for review.
- Overridden numbers that contradict the bundle's own are never guessed at: every window is deferred and says so.
- Beyond the deferral budget, a deferral becomes the station's safe action, and the detail says so.
"""

from collections.abc import Callable, Mapping
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edge.values import Judgement, StationSettings
from edge.wire.manifest import GOOD_LABEL, InspectPolicy, KeywordPolicy, Manifest
from edge.wire.terms import Action, DeferReason, Mode, Verdict

Draw = Callable[[], float]
"""Returns a number in 0…1; a decision is audited when it is below the station's audit share."""


def judge(
    probabilities: NDArray[np.float64], manifest: Manifest, settings: StationSettings, draw: Draw, *, in_budget: bool
) -> Judgement:
    """Return what to do about one window that the network has judged.

    Args:
        probabilities: (labels,) calibrated, in the manifest's order of labels.
        manifest: the bundle's manifest.
        settings: the station's mode, audit share and policy overrides.
        draw: source of randomness for audits.
        in_budget: whether the station may still defer in this hour.
    """
    scores = {label: float(p) for label, p in zip(manifest.labels, probabilities, strict=True)}
    top = manifest.labels[int(np.argmax(probabilities))]
    try:
        policy = effective_policy(manifest.policy, settings.policy_overrides)
    except ValidationError as error:
        why = f"the station's policy numbers do not fit the bundle: {error.errors()[0]['msg']}"
        return defer("model_error", why, settings, in_budget=in_budget)
    if isinstance(policy, InspectPolicy):
        verdict, confidence = _inspect(scores, policy)
        forced: Verdict = "pass" if scores[GOOD_LABEL] >= 0.5 else "divert"
        numbers = {"pass_max": policy.pass_max, "divert_min": policy.divert_min}
    elif isinstance(policy, KeywordPolicy):
        confidence = scores[top]
        verdict = "accept" if confidence >= policy.accept_min else "defer"
        forced = "accept"
        numbers = {"accept_min": policy.accept_min}
    else:
        assert_never(policy)
    if settings.mode == "full" and verdict == "defer":
        verdict = forced
    if verdict == "defer":
        action, detail = _deferral(settings.mode, in_budget=in_budget)
        return Judgement(verdict, action, "unsure", detail, top, confidence, scores, 0.0, numbers)
    audited = settings.audit_share > 0 and draw() < settings.audit_share
    return Judgement(
        verdict=verdict,
        action=_action(verdict, settings.mode),
        reason="audit" if audited else None,
        detail=None,
        label=top,
        confidence=confidence,
        scores=scores,
        audit_probability=settings.audit_share,
        policy=numbers,
    )


def defer(reason: DeferReason, detail: str, settings: StationSettings, *, in_budget: bool) -> Judgement:
    """Return the deferral of a window that could not be judged."""
    action, over = _deferral(settings.mode, in_budget=in_budget)
    words = f"{detail}; {over}" if over else detail
    return Judgement("defer", action, reason, words, None, None, {}, 0.0, {})


def effective_policy(
    policy: InspectPolicy | KeywordPolicy, overrides: Mapping[str, float]
) -> InspectPolicy | KeywordPolicy:
    """Return the policy with the cloud's or station's numbers in place; unknown names are ignored.

    Raises:
        pydantic.ValidationError: the numbers contradict each other.
    """
    known = {name: value for name, value in overrides.items() if name in type(policy).model_fields}
    return type(policy).model_validate({**policy.model_dump(), **known}) if known else policy


def _inspect(scores: Mapping[str, float], policy: InspectPolicy) -> tuple[Verdict, float]:
    defect = 1.0 - scores[GOOD_LABEL]
    if defect <= policy.pass_max:
        return "pass", scores[GOOD_LABEL]
    if defect >= policy.divert_min:
        return "divert", defect
    return "defer", max(defect, scores[GOOD_LABEL])


def _deferral(mode: Mode, *, in_budget: bool) -> tuple[Action, str | None]:
    if _person_decides(mode):
        return "none", None
    if in_budget:
        return "hand_over", None
    return "safe", "the hour's budget of deferrals is used up"


def _action(verdict: Verdict, mode: Mode) -> Action:
    if _person_decides(mode):
        return "none"
    if verdict == "pass":
        return "pass"
    if verdict == "divert":
        return "divert"
    return "accept" if verdict == "accept" else "hand_over"


def _person_decides(mode: Mode) -> bool:
    return mode in ("human", "shadow", "assist")
