"""From calibrated probabilities to a verdict and an action: pure, all thresholds from the bundle's policy.

Rules:
- Inspection: d = 1 − p(good); d ≤ pass_max passes, d ≥ divert_min is diverted, between them is `unsure`.
- Keywords: the likeliest label is accepted if p ≥ accept_min.
- Several kinds of defect at once: each has a probability and thresholds of its own; one kind is enough to divert, and
  a part passes only if it is free of all. The part's defect score is then 1 − Π(1 − p).
- A label that costs more may have a bound of its own, which can only make an automatic pass or acceptance rarer.
- Ties go to the lowest label index, so that engines that agree on scores agree on labels.
- An audit never changes a verdict or an action: it marks a confident decision for review.
- Overridden numbers that contradict the bundle's own are never guessed at: every window is deferred and says so.
- Beyond the deferral budget, a deferral becomes the station's safe action, and the detail says so.
- A candidate in the shadow changes nothing unless the policy says that its disagreement is worth a person's look.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from pydantic import ValidationError

from edge.values import Judgement, StationSettings
from edge.wire.manifest import GOOD_LABEL, AnyPolicy, InspectPolicy, KeywordPolicy, Manifest, MultilabelPolicy
from edge.wire.terms import Action, DeferReason, Mode, Verdict

Draw = Callable[[], float]
"""Returns a number in 0…1; a decision is audited when it is below the station's audit share."""


def judge(
    probabilities: Sequence[float], manifest: Manifest, settings: StationSettings, draw: Draw, *, in_budget: bool
) -> Judgement:
    """Return what to do about one window that the network has judged.

    Args:
        probabilities: calibrated, one per label in the manifest's order of labels.
        manifest: the bundle's manifest.
        settings: the station's mode, audit share and policy overrides.
        draw: source of randomness for audits.
        in_budget: whether the station may still defer in this hour.
    """
    scores = dict(zip(manifest.labels, probabilities, strict=True))
    top = max(scores, key=scores.__getitem__)
    try:
        policy = effective_policy(manifest.policy, settings.policy_overrides)
    except ValidationError as error:
        why = f"the station's policy numbers do not fit the bundle: {error.errors()[0]['msg']}"
        return defer("model_error", why, settings, in_budget=in_budget)
    if isinstance(policy, InspectPolicy):
        verdict, confidence = _inspect(scores, policy)
        forced: Verdict = "pass" if scores[GOOD_LABEL] >= 0.5 else "divert"
        numbers = {"pass_max": policy.pass_max, "divert_min": policy.divert_min}
        if policy.label_pass_max:
            verdict, forced = _held_by_label(verdict, forced, scores, policy)
            numbers |= {f"label_pass_max.{label}": most for label, most in policy.label_pass_max.items()}
    elif isinstance(policy, KeywordPolicy):
        confidence = scores[top]
        least = policy.label_accept_min.get(top, policy.accept_min)
        verdict = "accept" if confidence >= least else "defer"
        forced = "accept"
        numbers = {"accept_min": least}
    elif isinstance(policy, MultilabelPolicy):
        verdict, top, confidence, forced = _several(scores, policy)
        numbers = _numbers(policy)
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


def asks_candidate(judgement: Judgement, policy: AnyPolicy, settings: StationSettings) -> bool:
    """Return whether a candidate's judgement of the same window could change this one, see `compared`."""
    wanted = settings.on_disagreement or policy.on_disagreement
    return wanted == "defer" and settings.mode != "full" and judgement.verdict != "defer"


def compared(
    judgement: Judgement, candidate: Judgement, policy: AnyPolicy, settings: StationSettings, *, in_budget: bool
) -> Judgement:
    """Return the judgement, deferred if a candidate in the shadow disagrees and the policy wants a person to see that.

    Both must be sure: a candidate that would have deferred contradicts nothing, and who is asked to decide everything
    (`full`) is not stopped by one that is not in service.

    Args:
        judgement: of the bundle in service.
        candidate: of the candidate, on the same window.
        policy: of the bundle in service.
        settings: the station's.
        in_budget: whether the station may still defer in this hour.
    """
    if not asks_candidate(judgement, policy, settings) or candidate.verdict == "defer":
        return judgement
    word_differs = judgement.verdict == "accept" and judgement.label != candidate.label
    if judgement.verdict == candidate.verdict and not word_differs:
        return judgement
    words = f"{judgement.verdict} {judgement.label}, but {candidate.verdict} {candidate.label} by the candidate"
    action, over = _deferral(settings.mode, in_budget=in_budget)
    return replace(
        judgement,
        verdict="defer",
        action=action,
        reason="disagreement",
        detail=f"{words}; {over}" if over else words,
        audit_probability=0.0,
    )


def effective_policy(policy: AnyPolicy, overrides: Mapping[str, float]) -> AnyPolicy:
    """Return the policy with the cloud's or station's numbers in place; unknown names are ignored.

    Numbers of one label are named as in the record: `pass_max.scratch`.

    Raises:
        pydantic.ValidationError: the numbers contradict each other.
    """
    if isinstance(policy, MultilabelPolicy):
        return _with_label_numbers(policy, overrides) if overrides else policy
    known = {name: value for name, value in overrides.items() if name in type(policy).model_fields}
    return type(policy).model_validate({**policy.model_dump(), **known}) if known else policy


def _inspect(scores: Mapping[str, float], policy: InspectPolicy) -> tuple[Verdict, float]:
    defect = 1.0 - scores[GOOD_LABEL]
    if defect <= policy.pass_max:
        return "pass", scores[GOOD_LABEL]
    if defect >= policy.divert_min:
        return "divert", defect
    return "defer", max(defect, scores[GOOD_LABEL])


def _held_by_label(
    verdict: Verdict, forced: Verdict, scores: Mapping[str, float], policy: InspectPolicy
) -> tuple[Verdict, Verdict]:
    if all(scores[label] <= most for label, most in policy.label_pass_max.items()):
        return verdict, forced
    return ("defer" if verdict == "pass" else verdict), "divert"


def _several(scores: Mapping[str, float], policy: MultilabelPolicy) -> tuple[Verdict, str, float, Verdict]:
    """Return verdict, label, confidence, and the verdict of who must decide."""
    free, found, good = True, "", 1.0
    for label, p in scores.items():
        thresholds = policy.labels[label]
        good *= 1.0 - p
        free = free and p <= thresholds.pass_max
        if p >= thresholds.divert_min and not p <= thresholds.pass_max and (not found or p > scores[found]):
            found = label
    top = max(scores, key=scores.__getitem__)
    forced: Verdict = "pass" if good >= 0.5 else "divert"
    if found:
        return "divert", found, 1.0 - good, forced
    if free:
        return "pass", GOOD_LABEL, good, forced
    return "defer", top, max(good, 1.0 - good), forced


def _numbers(policy: MultilabelPolicy) -> dict[str, float]:
    numbers = {f"pass_max.{label}": thresholds.pass_max for label, thresholds in policy.labels.items()}
    return numbers | {f"divert_min.{label}": thresholds.divert_min for label, thresholds in policy.labels.items()}


def _with_label_numbers(policy: MultilabelPolicy, overrides: Mapping[str, float]) -> MultilabelPolicy:
    document = policy.model_dump()
    for name, value in overrides.items():
        number, _, label = name.partition(".")
        if number in ("pass_max", "divert_min") and label in document["labels"]:
            document["labels"][label][number] = value
    return MultilabelPolicy.model_validate(document)


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
