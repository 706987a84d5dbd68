"""Holds a bundle's figures against limits that were agreed beforehand, in a TOML file: pass or fail, with intervals.

Rules:
- A limit is met only if the whole 95 % interval is on its right side (`proof = "interval"`, the default), or the
  figure itself (`proof = "figure"`); a limit that too few examples could meet fails and says so.
- Limits are for the whole, a class, a slice, the distance to the version in service, the spread between groups, and
  for figures that the bundle itself records (`export.recorded`).
- What the examples could not test is listed; nothing is taken as passed because nobody looked.

    [[limit]]                                [[against]]                    [[fairness]]
    metric = "recall"                        metric = "accuracy"            by = "speaker"
    label = "scratch"                        worse_max = 0.01               metric = "accuracy"
    where = { site = "north" }                                              gap_max = 0.1
    min = 0.9
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.errors import ConfigError
from export.evidence import Judged, hits, measured
from export.intervals import share
from export.recorded import Figure, held

Metric = Literal[
    "accuracy",
    "recall",
    "coverage",
    "deferred",
    "wrong_share",
    "escape_share",
    "false_reject_share",
    "miss_share",
    "overkill_share",
    "detection",
    "good_share",
    "auroc",
]
_HIGHER_IS_BETTER = {"accuracy", "recall", "coverage", "detection", "good_share", "auroc"}
_FEWEST = 5
"""A group with fewer examples is not compared with the others."""


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limit(_Row):
    """One figure and what it must not fall below or rise above."""

    metric: Metric
    label: str | None = None
    where: dict[str, str] = Field(default_factory=dict)
    min: float | None = None
    max: float | None = None
    proof: Literal["interval", "figure"] = "interval"

    @model_validator(mode="after")
    def _has_an_end(self) -> "Limit":
        if (self.min is None) == (self.max is None):
            raise ValueError("expected either min or max")
        return self


class Against(_Row):
    """How much worse than the version in service a figure may be, on the same examples."""

    metric: Metric
    label: str | None = None
    worse_max: float = 0.0


class Fairness(_Row):
    """How far the best and the worst of some groups may lie apart."""

    by: str
    """A slice's column, or `group`."""
    metric: Metric
    gap_max: float

    @model_validator(mode="after")
    def _counts_examples(self) -> "Fairness":
        if self.metric == "auroc":
            raise ValueError("expected a metric that is a share of examples, got auroc")
        return self


class Limits(_Row):
    """The whole file."""

    limit: list[Limit] = Field(default_factory=list)
    against: list[Against] = Field(default_factory=list)
    fairness: list[Fairness] = Field(default_factory=list)
    figure: list[Figure] = Field(default_factory=list)


def read(path: Path) -> Limits:
    """Return the limits of a file.

    Raises:
        ConfigError: it is not there, not TOML, or names what is not known.
    """
    try:
        return Limits.model_validate(tomllib.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {place}: {first['msg']}") from error


def audit(
    judged: Judged | None,
    limits: Limits | None,
    before: Judged | None = None,
    judged_by: str = "",
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the audit: each limit with figure, interval and answer, the whole answer, and what was not tested.

    Args:
        judged: the bundle's judgements; None if only recorded figures are held against their limits.
        limits: None if nothing was agreed: then there is no answer, only what was not tested.
        before: judgements of the version in service on the same examples.
        judged_by: how the judgements were made, in words.
        recorded: figures that the bundle records, as `export.recorded.of_manifest` gives them.
    """
    untested = _untested(judged, before)
    rows: list[dict[str, Any]] = []
    if limits is None:
        untested.append("no limits were agreed beforehand, so there is nothing to pass or fail")
    else:
        rows = [*_rows(judged, limits, before), *(held(item, recorded or {}) for item in limits.figure)]
    return {
        "passed": None if limits is None else all(row["passed"] for row in rows),
        "limits": rows,
        "not_tested": untested,
        "examples": 0 if judged is None else len(judged.truth),
        "groups": 0 if judged is None else len(np.unique(judged.groups)),
        "judged_by": judged_by,
    }


def _rows(judged: Judged | None, limits: Limits, before: Judged | None) -> list[dict[str, Any]]:
    """Return the answers to what needs judgements; without any, all of it fails."""
    if judged is None:
        asked: list[Limit | Fairness | Against] = [*limits.limit, *limits.fairness, *limits.against]
        return [{"limit": item.metric, "passed": False, "why": "no example tests it"} for item in asked]
    rows = [_limit(judged, item) for item in limits.limit]
    rows += [_fairness(judged, item) for item in limits.fairness]
    if before is None:
        return [*rows, *(_missing(item) for item in limits.against)]
    return [*rows, *(_against(judged, before, item) for item in limits.against)]


def _limit(judged: Judged, limit: Limit) -> dict[str, Any]:
    where = np.ones(len(judged.truth), bool)
    words: list[str] = [limit.metric]
    if limit.label is not None:
        known = limit.label in judged.labels
        where &= judged.truth == judged.labels.index(limit.label) if known else False
        words.append(f"of {limit.label}")
    for column, value in limit.where.items():
        where &= _column(judged, column) == value
        words.append(f"where {column} is {value}")
    found = measured(judged, limit.metric, where)
    bound = f"at least {limit.min:g}" if limit.min is not None else f"at most {limit.max:g}"
    return {"limit": f"{' '.join(words)}: {bound}", **found, **_answer(found, limit)}


def _answer(found: dict[str, Any], limit: Limit) -> dict[str, Any]:
    if not found["total"]:
        return {"passed": False, "why": "no example tests it"}
    whole = limit.proof == "interval"
    if limit.min is not None:
        passed = (found["low"] if whole else found["value"]) >= limit.min
        near = found["value"] >= limit.min
    else:
        assert limit.max is not None
        passed = (found["high"] if whole else found["value"]) <= limit.max
        near = found["value"] <= limit.max
    why = "" if passed else ("the figure meets it, the interval does not: too few examples" if near else "not met")
    return {"passed": bool(passed), "why": why}


def _fairness(judged: Judged, rule: Fairness) -> dict[str, Any]:
    counted, hit = hits(judged, rule.metric)
    values = _column(judged, rule.by)
    named = {value: counted & (values == value) for value in sorted(set(values) - {""})}
    shares = {v: float(hit[rows].mean()) for v, rows in named.items() if int(rows.sum()) >= _FEWEST}
    words = f"{rule.metric} between groups by {rule.by}: at most {rule.gap_max:g} apart"
    if len(shares) < 2:
        return {"limit": words, "passed": False, "why": f"fewer than two groups with {_FEWEST} examples"}
    best, worst = max(shares, key=lambda v: shares[v]), min(shares, key=lambda v: shares[v])
    gap = shares[best] - shares[worst]
    worst_share = share(hit[named[worst]], judged.groups[named[worst]])
    detail = f"{worst} {shares[worst]:.1%} ({worst_share.low:.1%}–{worst_share.high:.1%}), {best} {shares[best]:.1%}"
    passed = bool(gap <= rule.gap_max)
    return {"limit": words, "value": round(gap, 4), "passed": passed, "why": detail, "groups": len(shares)}


def _against(judged: Judged, before: Judged, rule: Against) -> dict[str, Any]:
    where = np.ones(len(judged.truth), bool)
    if rule.label is not None:
        where &= judged.truth == judged.labels.index(rule.label)
    now, then = measured(judged, rule.metric, where), measured(before, rule.metric, where)
    words = (
        f"{rule.metric}{f' of {rule.label}' if rule.label else ''}: at most {rule.worse_max:g} worse than in service"
    )
    if now["value"] is None or then["value"] is None:
        return {"limit": words, "passed": False, "why": "no example tests it"}
    better = now["value"] - then["value"]
    worse = -better if rule.metric in _HIGHER_IS_BETTER else better
    return {
        "limit": words,
        **now,
        "before": then["value"],
        "passed": bool(worse <= rule.worse_max + 1e-9),
        "why": f"in service {then['value']:.4f} ({then['low']:.4f}–{then['high']:.4f})",
    }


def _missing(rule: Against) -> dict[str, Any]:
    return {"limit": f"{rule.metric}: against the version in service", "passed": False, "why": "no version was given"}


def _column(judged: Judged, column: str) -> NDArray[np.str_]:
    if column == "group":
        return np.asarray(judged.groups).astype(str)
    return np.array([row.get(column, "") for row in judged.slices])


def _untested(judged: Judged | None, before: Judged | None) -> list[str]:
    everywhere = ["other cameras, lights and suppliers than those in the data", "time: wear and drift"]
    service = [] if before is not None else ["the version in service: none was given"]
    if judged is None:
        return ["files judged by this very network: figures are those that its making recorded", *service, *everywhere]
    found = [f"class {label}: no example" for at, label in enumerate(judged.labels) if not np.any(judged.truth == at)]
    few = [
        f"class {label}: {n} independent groups"
        for at, label in enumerate(judged.labels)
        if 0 < (n := len(np.unique(judged.groups[judged.truth == at]))) < _FEWEST
    ]
    columns: Sequence[str] = sorted({name for row in judged.slices for name in row})
    slices = [] if columns else ["slices (site, light, batch …): the data names none"]
    return [*found, *few, *slices, *service, *everywhere]
