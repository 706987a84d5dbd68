"""Scores with their truth in a file, so that a guarantee can be tried out on them again: `lineside-bench risk`.

The file is `.npz`, without pickled objects:

| name | shape | what |
| --- | --- | --- |
| `score` | (n,) float64 in 0…1 | inspection: defect score 1 − p(good); keywords: probability of the likeliest label |
| `event` | (n,) bool | inspection: the part is defective; keywords: the likeliest label is right |
| `unit` | (n,) text or whole numbers | which examples belong together: part, speaker, board |
| `task` | text | `inspect` or `keyword` |
| `name` | text | what they are scores of, for people |

Rules:
- Scores are calibrated ones of the shipped file, for examples that neither training nor calibration has seen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.errors import ModelError
from edge.wire.terms import Task
from export.evidence import Judged
from export.thresholds import Sample

_NAMES = ("score", "event", "unit", "task", "name")
_TASKS: dict[str, Task] = {"inspect": "inspect", "keyword": "keyword"}


@dataclass(frozen=True)
class Scores:
    """Scores of one model."""

    sample: Sample
    task: Task
    name: str


def of(judged: Judged, name: str) -> Scores:
    """Return the scores of judged examples; inputs that the gate refused have none.

    Args:
        judged: examples with calibrated probabilities and their units.
        name: what they are scores of, for people.
    """
    kept = ~judged.refused
    if judged.inspects:
        score, event = judged.defect_score(), judged.defective()
    else:
        score, event = judged.chances.max(1), judged.chances.argmax(1) == judged.truth
    sample = Sample(np.clip(score[kept], 0.0, 1.0), event[kept], judged.groups[kept])
    return Scores(sample, "inspect" if judged.inspects else "keyword", name)


def write(path: Path, scores: Scores) -> None:
    """Write scores to a file."""
    sample = scores.sample
    units = np.arange(len(sample.score)) if sample.unit is None else np.asarray(sample.unit)
    values: dict[str, Any] = {
        "score": np.asarray(sample.score, np.float64),
        "event": np.asarray(sample.event, np.bool_),
        "unit": units.astype(np.str_) if units.dtype == object else units,
        "task": np.array(scores.task),
        "name": np.array(scores.name),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **values)


def read(path: Path) -> Scores:
    """Return the scores in a file.

    Raises:
        ModelError: it cannot be read, or is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = {name: stored[name] for name in _NAMES if name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        hint = "expected the .npz that `lineside-export fit` or `audit --scores` writes"
        raise ModelError(f"{path}: cannot read scores: {error}", hint=hint) from error
    missing = [name for name in _NAMES if name not in values]
    if missing:
        raise ModelError(f"{path}: expected {', '.join(_NAMES)}, there is no {', '.join(missing)}")
    score, event, unit = values["score"], values["event"], values["unit"]
    if score.ndim != 1 or score.shape != event.shape or score.shape != unit.shape or event.dtype != np.bool_:
        raise ModelError(
            f"{path}: expected score, event (bool) and unit of one length, "
            f"got {score.shape}, {event.dtype} {event.shape} and {unit.shape}"
        )
    if not len(score) or not np.isfinite(score).all() or score.min() < 0 or score.max() > 1:
        raise ModelError(f"{path}: expected scores between 0 and 1")
    task = _TASKS.get(str(values["task"]))
    if task is None:
        raise ModelError(f"{path}: expected task inspect or keyword, got {values['task']!s}")
    return Scores(Sample(score.astype(np.float64), event, unit), task, str(values["name"]))
