"""Makes the reference that devices recognise strange inputs by, and sets its limit at a stated false-alarm rate.

Rules:
- The reference comes from training and pilot features; the limit from held-out ones, good and defective, that took no
  part in it. A unit (part, speaker) weighs the same however many examples it has.
- The limit is the conformal one: with n units, the smallest that a share (1 − rate) × (1 + 1/n) does not exceed
  (two-layer form after Dunn, Wasserman, Ramdas 2022, arXiv:1809.07441). Fewer than 1/rate − 1 units cannot show the
  rate; then the limit is the largest score seen, and the note says so.
- Where units come in blocks that differ (boards, speakers, positions) and the next block is what counts, the limit is
  set on scores of each block by a reference that knew the other blocks only; the reference that ships knows all.
- Which score is used is chosen by measuring: the share of strange inputs found at that limit, over inputs that are
  made strange on purpose (`export.strange`), never over those that a recipe brings to be told about.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.ood import Reference, reference_of, scores
from edge.wire.manifest import OutOfDistribution
from export import golden

FILE = "known_features.npy"
RATE = 0.01
_METHODS: tuple[Literal["mahalanobis", "nearest"], ...] = ("mahalanobis", "nearest")
_PROTOTYPES = 48
"""Few enough that the product costs less than the network's last layers, enough for every label and light."""
_SEED = 1

Features = NDArray[np.float32]
"""(n, d)."""


@dataclass(frozen=True)
class Recognition:
    """A fitted reference with what it brings."""

    spec: OutOfDistribution
    content: bytes
    """The file of the reference."""
    scores: NDArray[np.float64]
    """Of the held-out examples (n,)."""
    figures: dict[str, Any]


def fit(
    known: Features,
    heldout: Features,
    units: NDArray[Any] | None,
    strange: Mapping[str, Features],
    *,
    unit: str,
    told: Mapping[str, Features] | None = None,
    rate: float = RATE,
) -> Recognition:
    """Return the reference that finds most of what is strange, with its limit and figures.

    Args:
        known: features of training and pilot examples.
        heldout: features of held-out examples, good and defective.
        units: (n,) which held-out examples belong together; None if each stands alone.
        strange: features of inputs made strange, by kind; the score is chosen on them.
        unit: the name of a unit, singular.
        told: features of strange inputs that the recipe brings; only measured.
        rate: the false-alarm rate.
    """
    return _best([_fit_one(method, known, heldout, units, unit, rate) for method in _METHODS], strange, told)


def fit_apart(
    known: Features,
    units: NDArray[Any],
    blocks: NDArray[Any],
    strange: Mapping[str, Features],
    *,
    unit: str,
    block: str,
    told: Mapping[str, Features] | None = None,
    rate: float = RATE,
    margin: float = 1.0,
) -> Recognition:
    """Return the reference of all known examples, with a limit that holds for blocks that it does not know.

    Args:
        known: features of known examples, good and defective.
        units: (n,) which of them belong together.
        blocks: (n,) which units are alike; at least two.
        strange: features of inputs made strange, by kind; the score is chosen on them.
        unit: the name of a unit, singular.
        block: the name of a block, singular.
        told: features of strange inputs that the recipe brings; only measured.
        rate: the false-alarm rate.
        margin: factor on the limit, for blocks so few that nobody knows how much the next one differs.
    """
    names = np.unique(blocks)
    fitted = [_fit_apart(method, known, units, blocks, unit, rate, margin) for method in _METHODS]
    found = _best(fitted, strange, told)
    alarmed = found.scores > found.spec.limit
    found.figures["false_alarms_by_block"] = {str(n): round(float(alarmed[blocks == n].mean()), 5) for n in names}
    return with_note(
        found,
        f"each {block} scored by what was known of the other {len(names) - 1}; the network itself has seen them all",
    )


def _best(
    fitted: list[Recognition], strange: Mapping[str, Features], told: Mapping[str, Features] | None
) -> Recognition:
    """Return the one that finds most of what was made strange, with its figures."""
    found = [_found(item, strange) for item in fitted]
    best = int(np.argmax([_mean(shares) for shares in found]))
    chosen = fitted[best]
    figures = {
        "method": chosen.spec.method,
        "limit": chosen.spec.limit,
        "false_alarms": round(float(np.mean(chosen.scores > chosen.spec.limit)), 5),
        "n": chosen.spec.n,
        "found": found[best],
        "found_by": {item.spec.method: round(_mean(shares), 4) for item, shares in zip(fitted, found, strict=True)},
    }
    if told:
        figures["told"] = _found(chosen, told)
    return Recognition(chosen.spec, chosen.content, chosen.scores, figures)


def with_note(found: Recognition, note: str) -> Recognition:
    """Return the same with a note added to those of its limit."""
    notes = "; ".join(text for text in (found.spec.note, note) if text)
    return replace(found, spec=found.spec.model_copy(update={"note": notes}))


def limit_at(values: NDArray[np.float64], units: NDArray[Any] | None, rate: float) -> tuple[float, int, str]:
    """Return (limit, number of units, note) such that a known input scores above the limit with the given rate.

    Args:
        values: (n,) scores of known inputs.
        units: (n,) which of them belong together; None if each stands alone.
        rate: the share that may be above.
    """
    numbers = np.arange(len(values)) if units is None else np.unique(units, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    count = len(sizes)
    share = (1 - rate) * (1 + 1 / count)
    if share >= 1:
        needed = int(np.ceil((1 - rate) / rate))
        note = f"{count} units are too few to show {rate:.0%}, {needed} would do; the limit is the largest score seen"
        return float(values.max()), count, note
    order = np.argsort(values)
    below = np.cumsum(1 / sizes[numbers[order]]) / count
    return float(values[order][np.searchsorted(below, share - 1e-12)]), count, ""


def _fit_one(
    method: Literal["mahalanobis", "nearest"],
    known: Features,
    heldout: Features,
    units: NDArray[Any] | None,
    unit: str,
    rate: float,
) -> Recognition:
    values = _small(_mahalanobis(known) if method == "mahalanobis" else _nearest(known))
    spec = OutOfDistribution(method=method, file=FILE, limit=0.0, false_alarm_rate=rate, n=1, unit=unit)
    measured = scores(heldout, reference_of(spec, values, known.shape[1]))
    limit, count, note = limit_at(measured, units, rate)
    limit = float(np.nextafter(np.float32(limit), np.float32(np.inf)))
    spec = spec.model_copy(update={"limit": limit, "n": count, "note": note})
    return Recognition(spec, golden.as_npy(values), measured, {})


def _fit_apart(
    method: Literal["mahalanobis", "nearest"],
    known: Features,
    units: NDArray[Any],
    blocks: NDArray[Any],
    unit: str,
    rate: float,
    margin: float,
) -> Recognition:
    measured = np.zeros(len(known))
    for name in np.unique(blocks):
        inside = blocks == name
        measured[inside] = _fit_one(method, known[~inside], known[inside], units[inside], unit, rate).scores
    limit, count, note = limit_at(measured, units, rate)
    limit = float(np.nextafter(np.float32(limit * margin), np.float32(np.inf)))
    if margin != 1:
        note = "; ".join(text for text in (note, f"the limit is {margin:g} times the one of that rate") if text)
    whole = _fit_one(method, known, known[:1], None, unit, rate)
    spec = whole.spec.model_copy(update={"limit": limit, "n": count, "note": note})
    return Recognition(spec, whole.content, measured, {})


def _small(values: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return half the bytes where the numbers fit: the limit is set with what is rounded, so nothing is lost."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else values


def _mahalanobis(known: Features) -> NDArray[np.float32]:
    """Return (d, d + 1): the inverse square root of the covariance, shrunk after Ledoit and Wolf, and its offset."""
    from sklearn.covariance import LedoitWolf

    estimate = LedoitWolf().fit(known.astype(np.float64))
    variances, directions = np.linalg.eigh(estimate.covariance_)
    # Features that never move give no variance; a millionth of the mean one keeps the product finite.
    variances = np.maximum(variances, max(float(variances.mean()), 1e-12) * 1e-6)
    matrix = directions.T / np.sqrt(variances)[:, None]
    return np.concatenate([matrix, (matrix @ estimate.location_)[:, None]], 1).astype(np.float32)


def _nearest(known: Features) -> NDArray[np.float32]:
    """Return (prototypes, d + 1): centres of the directions of known features, each of length one; no offset."""
    from sklearn.cluster import KMeans

    length = np.linalg.norm(known.astype(np.float64), axis=1, keepdims=True)
    directions = known / np.maximum(length, 1e-12)
    count = min(_PROTOTYPES, len(np.unique(directions.round(6), axis=0)))
    centres = KMeans(count, n_init=1, random_state=_SEED).fit(directions).cluster_centers_
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return np.concatenate([centres, np.zeros((count, 1))], 1).astype(np.float32)


def _mean(shares: Mapping[str, float]) -> float:
    return sum(shares.values()) / max(len(shares), 1)


def _found(item: Recognition, strange: Mapping[str, Features]) -> dict[str, float]:
    values = np.lib.format.read_array(io.BytesIO(item.content), allow_pickle=False)
    reference: Reference = reference_of(item.spec, values, values.shape[1] - 1)
    return {
        kind: round(float(np.mean(~(scores(features, reference) <= item.spec.limit))), 4)
        for kind, features in strange.items()
    }
