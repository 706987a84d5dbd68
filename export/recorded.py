"""Holds figures that a bundle records of itself (cross-validation, held-out data) against agreed limits. Pure.

Rules:
- A recipe's cross-validation judges every part by a network that never saw it; those figures stand in the manifest and
  cannot be had again from the network that ships, which has seen all. An audit may therefore name them.
- A figure comes with the interval that its recipe measured, or with one of Clopper and Pearson from two counts.
- What the bundle does not record fails: nothing is taken as passed because nobody looked.

    [[figure]]
    says = "AUROC by part, tiles never seen"
    of = "cross_validated/auroc_part/auroc"            # or count = "…/escapes" and total = "…/passed"
    interval = "cross_validated/auroc_part/interval"
    min = 0.93
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from edge.wire.manifest import Manifest
from export.intervals import clopper_pearson

BY_RECORD = "figures that the bundle records of its making"
"""How the judgements of such an audit were made."""


class Figure(BaseModel):
    """A recorded figure and what it must not fall below or rise above."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    """What it is, for people."""
    of: str | None = None
    """Where it stands: names with strokes between them, within `metrics`, or from `guarantee` on."""
    interval: str | None = None
    """Where its interval stands, two numbers."""
    count: str | None = None
    """In place of `of`: where the number of hits stands."""
    total: str | float | None = None
    """Of how many: where it stands, or the number itself. With `of` it gives a share its interval."""
    min: float | None = None
    max: float | None = None
    proof: Literal["interval", "figure"] = "interval"

    @model_validator(mode="after")
    def _one_figure_and_one_end(self) -> "Figure":
        if (self.min is None) == (self.max is None):
            raise ValueError("expected either min or max")
        if (self.of is None) == (self.count is None):
            raise ValueError("expected either of, or count and total")
        if self.count is not None and self.total is None:
            raise ValueError("expected total beside count")
        return self


def of_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return what figures may be named of: the metrics, and the guarantee of the thresholds."""
    policy = manifest.policy
    guarantee = {} if policy.guarantee is None else policy.guarantee.model_dump(exclude_none=True)
    return {**manifest.metrics, "guarantee": guarantee}


def held(figure: Figure, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of an audit: words, figure with interval, whether it passed and why not.

    Args:
        figure: what was agreed.
        recorded: as `of_manifest` gives it.
    """
    bound = f"at least {figure.min:g}" if figure.min is not None else f"at most {figure.max:g}"
    words = f"{figure.says}: {bound}"
    found = _found(figure, recorded)
    if found is None:
        return {"limit": words, "passed": False, "why": "the bundle records no such figure"}
    return {"limit": words, **found, **_answer(figure, found)}


def _found(figure: Figure, recorded: Mapping[str, Any]) -> dict[str, Any] | None:
    total = figure.total if not isinstance(figure.total, str) else _number(recorded, figure.total)
    value = _number(recorded, figure.of) if figure.of is not None else None
    if figure.count is not None:
        count = _number(recorded, figure.count)
        value = None if count is None or not total else count / total
    if value is None:
        return None
    found: dict[str, Any] = {"value": round(value, 4)}
    ends = None if figure.interval is None else _at(recorded, figure.interval)
    if ends is not None:
        found |= {"low": round(float(ends[0]), 4), "high": round(float(ends[1]), 4)}
    elif total:
        low, high = clopper_pearson(value, float(total), 0.05)
        found |= {"low": round(low, 4), "high": round(high, 4), "total": int(total)}
    return found


def _answer(figure: Figure, found: Mapping[str, Any]) -> dict[str, Any]:
    if figure.proof == "interval" and "low" not in found:
        return {"passed": False, "why": "no interval was recorded with it"}
    if figure.min is not None:
        near = found["value"] >= figure.min
        passed = found["low"] >= figure.min if figure.proof == "interval" else near
    else:
        assert figure.max is not None
        near = found["value"] <= figure.max
        passed = found["high"] <= figure.max if figure.proof == "interval" else near
    why = "" if passed else ("the figure meets it, the interval does not: too few examples" if near else "not met")
    return {"passed": bool(passed), "why": why}


def _number(recorded: Mapping[str, Any], path: str) -> float | None:
    found = _at(recorded, path)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _at(recorded: Mapping[str, Any], path: str) -> Any:
    found: Any = recorded
    for name in path.split("/"):
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found
