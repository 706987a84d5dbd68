"""Made-up judgements for tests of figures, limits and pages."""

import numpy as np

from edge.wire.manifest import InspectPolicy, KeywordPolicy
from export.evidence import Judged


def inspected(scores: list[float], bad: list[bool], *, groups: list[int] | None = None, sites: str = "") -> Judged:
    """Return judgements with these defect scores; thresholds 0.2 and 0.8; `sites` is a letter per example."""
    score = np.array(scores)
    return Judged(
        labels=["good", "scratch"],
        truth=np.array(bad).astype(np.intp),
        chances=np.stack([1 - score, score], 1),
        groups=np.arange(len(scores)) if groups is None else np.array(groups),
        policy=InspectPolicy(pass_max=0.2, divert_min=0.8),
        slices=[{"site": site} for site in sites] or [{} for _ in scores],
    )


def heard(chances: list[list[float]], truth: list[int], accept_min: float = 0.9) -> Judged:
    """Return judgements of words."""
    return Judged(
        labels=["no", "yes"],
        truth=np.array(truth),
        chances=np.array(chances),
        groups=np.arange(len(truth)),
        policy=KeywordPolicy(accept_min=accept_min),
        slices=[{} for _ in truth],
    )
