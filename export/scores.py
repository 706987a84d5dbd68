"""Scores with their truth in a file, so that a guarantee can be tried out on them again: `lineside-bench risk`.

The file is `.npz`, without pickled objects:

| name | shape | what |
| --- | --- | --- |
| `score` | (n,) float64 in 0…1 | inspection: defect score 1 − p(good); keywords: probability of the likeliest label |
| `event` | (n,) bool | inspection: the part is defective; keywords: the likeliest label is right |
| `unit` | (n,) text or whole numbers | which examples belong together: part, speaker, board |
| `task` | text | `inspect` or `keyword` |
| `name` | text | what they are scores of, for people |
| `block` | (n,) text, perhaps | units that are alike: a board, a speaker; bounds are also tried on other blocks |
| `chances` | (n, labels) float32, perhaps | calibrated probabilities, for an audit of what was judged before |
| `truth`, `labels` | (n,) whole numbers, (labels,) text | with `chances`: the true label of each |
| `slices`, `slice_names` | (n, k) text, (k,) text | with `chances`: what else is known of each |

Rules:
- Scores are calibrated ones of the shipped file, or of files made alike that never saw the example's unit, for examples
  that neither training nor calibration has seen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError, ModelError
from edge.wire.manifest import GOOD_LABEL, Manifest
from edge.wire.terms import Task
from export.evidence import Judged
from export.thresholds import Sample

_NAMES = ("score", "event", "unit", "task", "name")
_MORE = ("block", "chances", "truth", "labels", "slices", "slice_names")
_TASKS: dict[str, Task] = {"inspect": "inspect", "keyword": "keyword"}


@dataclass(frozen=True)
class Rows:
    """What an audit needs beyond the scores."""

    labels: list[str]
    truth: NDArray[np.intp]
    chances: NDArray[np.float64]
    """(n, labels)."""
    slices: list[dict[str, str]]


@dataclass(frozen=True)
class Scores:
    """Scores of one model."""

    sample: Sample
    task: Task
    name: str
    block: NDArray[np.generic] | None = None
    """(n,) which units are alike."""
    rows: Rows | None = None


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
    slices = [row for row, inside in zip(judged.slices, kept, strict=True) if inside]
    rows = Rows(judged.labels, judged.truth[kept], judged.chances[kept], slices)
    return Scores(sample, "inspect" if judged.inspects else "keyword", name, rows=rows)


def of_rows(rows: Rows, units: NDArray[Any], task: Task, name: str, block: NDArray[Any] | None = None) -> Scores:
    """Return the scores of examples with known probabilities.

    Args:
        rows: probabilities with the truth; for inspection `good` is among the labels.
        units: (n,) which examples belong together.
        task: what the model does.
        name: what they are scores of, for people.
        block: (n,) which units are alike.
    """
    if task == "inspect":
        good = rows.labels.index(GOOD_LABEL)
        sample = Sample(np.clip(1.0 - rows.chances[:, good], 0.0, 1.0), rows.truth != good, units)
    else:
        sample = Sample(np.clip(rows.chances.max(1), 0.0, 1.0), rows.chances.argmax(1) == rows.truth, units)
    return Scores(sample, task, name, block, rows)


def judged(scores: Scores, manifest: Manifest) -> Judged:
    """Return what a bundle's policy makes of kept probabilities, as an audit takes it.

    Raises:
        ConfigError: the file holds no probabilities, or those of other labels.
    """
    rows = scores.rows
    if rows is None:
        raise ConfigError(f"{scores.name}: expected kept probabilities, the file holds scores only")
    if rows.labels != manifest.labels:
        raise ConfigError(f"{scores.name}: expected labels {manifest.labels}, got {rows.labels}")
    numbers = np.asarray(scores.sample.units())
    return Judged(rows.labels, rows.truth, rows.chances, numbers, manifest.policy, rows.slices)


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
    if scores.block is not None:
        values["block"] = np.asarray(scores.block).astype(np.str_)
    if scores.rows is not None:
        values |= _row_values(scores.rows)
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
            values = {name: stored[name] for name in (*_NAMES, *_MORE) if name in stored.files}
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
    sample = Sample(score.astype(np.float64), event, unit)
    return Scores(sample, task, str(values["name"]), values.get("block"), _rows(path, values))


def _row_values(rows: Rows) -> dict[str, Any]:
    names = sorted({name for row in rows.slices for name in row})
    return {
        "chances": rows.chances.astype(np.float32),
        "truth": rows.truth,
        "labels": np.array(rows.labels),
        "slice_names": np.array(names, np.str_),
        "slices": np.array([[row.get(name, "") for name in names] for row in rows.slices], np.str_),
    }


def _rows(path: Path, values: dict[str, Any]) -> Rows | None:
    count = len(values["score"])
    if "block" in values and values["block"].shape != (count,):
        raise ModelError(f"{path}: expected a block for each of {count} scores, got {values['block'].shape}")
    if "chances" not in values:
        return None
    missing = [name for name in _MORE[2:] if name not in values]
    labels = [str(label) for label in values.get("labels", ())]
    names = [str(name) for name in values.get("slice_names", ())]
    fits = not missing and values["chances"].shape == (count, len(labels)) and values["truth"].shape == (count,)
    if not fits or values["slices"].shape[:1] != (count,) or not np.isin(values["truth"], range(len(labels))).all():
        raise ModelError(f"{path}: expected {', '.join(_MORE[1:])} that fit {count} scores")
    chances = values["chances"].astype(np.float64)
    slices = [{name: str(v) for name, v in zip(names, row, strict=True) if v} for row in values["slices"]]
    return Rows(labels, values["truth"].astype(np.intp), chances, slices)
