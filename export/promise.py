"""Says in sentences what a bundle promises and from which scores on it decides. Pure.

Rules:
- A side that could not be proven is said to decide nothing; thresholds beyond all scores are never shown as numbers.
"""

from edge.bundle import Bundle
from edge.wire.manifest import InspectPolicy, KeywordPolicy, Policy


def promise_in_words(bundle: Bundle) -> list[str]:
    """Return the guarantee as sentences."""
    policy = bundle.manifest.policy
    guarantee = policy.guarantee
    if guarantee is None:
        return ["Nothing is promised: the thresholds were not proven on data."]
    sure = f"{1 - guarantee.delta:.0%}"
    decided = (
        f"It decided {guarantee.coverage:.1%} of {guarantee.n:,} {plural(guarantee.unit)} alone, a person the rest."
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
    return [f"With confidence {sure}:", *promised, decided]


def _side(verb: str, wrong: str, alpha: float | None, *, proven: bool) -> str:
    if alpha is None:
        return f"nothing is said about what it {verb}"
    if not proven:
        return f"it {verb} nothing: at most {alpha:.2%} {wrong} could not be proven"
    return f"of what it {verb}, at most {alpha:.2%} is {wrong}"


def thresholds_in_words(policy: Policy) -> str:
    """Return from where on it decides alone."""
    if isinstance(policy, InspectPolicy):
        passing = f"pass at a defect score of at most {policy.pass_max:g}" if policy.pass_max >= 0 else "pass nothing"
        diverting = f"divert from {policy.divert_min:g} on" if policy.divert_min <= 1 else "divert nothing"
        return f"{passing}, {diverting}"
    if isinstance(policy, KeywordPolicy):
        if policy.accept_min > 1:
            return "accept nothing: everything goes to a person"
        return f"accept from a probability of {policy.accept_min:g} on"
    return "; ".join(
        f"{name}: free up to {label.pass_max:g}, found from {label.divert_min:g} on"
        for name, label in policy.labels.items()
    )


def plural(unit: str) -> str:
    """Return the name of several units."""
    return unit if unit.endswith("s") else f"{unit}s"
