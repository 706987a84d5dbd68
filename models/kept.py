"""Keeps the scores that a bundle's thresholds were proven on beside it, for `lineside-bench risk`.

Rules:
- They are scores of networks that never saw the example's unit, calibrated as the shipped one, of examples that the
  calibration never saw: those of the finished network on its own training data would be too good.
- A row is a score, whether it is an event, its unit and its block: no picture, no sound, some kilobytes.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.build import BuildReport
from export.scores import write

SUFFIX = ".scores.npz"


def keep(report: BuildReport, says: str, block: NDArray[np.generic] | None = None) -> Path:
    """Write the scores of a bundle that was just built to `NAME-VERSION.scores.npz` beside it.

    Args:
        report: of the build; its held-out data had labels.
        says: how the scores came about, for people.
        block: (n,) which held-out examples are alike: a board, a speaker, a position.
    """
    assert report.scores is not None
    path = report.path.with_suffix(SUFFIX)
    write(path, replace(report.scores, name=f"{report.ref.name} {report.ref.version}, {says}", block=block))
    return path
