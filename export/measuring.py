"""Judges labelled files with a finished bundle, by the steps of a device, for audits and comparisons.

Rules:
- Only what is in the bundle is used: its gate, preprocessing, file, calibration and thresholds.
- What the gate refuses has no probabilities and counts as deferred.
"""

import numpy as np

from edge.bundle import Bundle
from edge.errors import ConfigError
from export.audit import judgements
from export.dataset import Item, read
from export.evidence import Judged


def judge_items(bundle: Bundle, items: list[Item], runtime: str | None = None) -> Judged:
    """Return what a bundle makes of labelled files.

    Raises:
        ConfigError: a file's label is none of the bundle's.
    """
    labels = bundle.manifest.labels
    foreign = sorted({item.label for item in items} - set(labels))
    if foreign:
        raise ConfigError(
            f"{bundle.ref.name} {bundle.ref.version} does not know {', '.join(foreign)}",
            hint=f"it knows {', '.join(labels)}; name the folders so (--good NAME for the good one)",
        )
    made = judgements(bundle, (read(item) for item in items), runtime)
    rows = [[one.scores.get(label, np.nan) for label in labels] for one in made]
    return Judged(
        labels=labels,
        truth=np.array([labels.index(item.label) for item in items]),
        chances=np.asarray(rows, np.float64).reshape(len(items), len(labels)),
        groups=np.unique(np.array([item.group for item in items]), return_inverse=True)[1],
        policy=bundle.manifest.policy,
        slices=[item.slices for item in items],
    )
