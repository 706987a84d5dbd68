"""Looks over a data set before anything is trained on it: what a careful person would want to know first.

Rules:
- Nothing is changed in the folder; what cannot be read is left out and named.
- Files with the same bytes count as one thing: they get one group, so that no split parts them.
- Pictures that are nearly the same get one group as well, unless nearly all are alike, as under a fixed camera.
- A label is doubted only if a linear model and the nearest neighbours, both without its group, deny it; once networks
  that never saw its group have judged a file, and beat that model, their word counts instead.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export import simple
from export.dataset import Dataset, Item, read

_ALIKE = 0.995
"""Correlation of two pictures' gray values at 32 × 32 from which on they are near duplicates."""
_LARGEST_ALIKE = 0.1
"""A cluster of near duplicates with more of the pictures than this is a fixed camera, not a copy."""
_DOUBT_BELOW = 0.1
"""A given label is doubted below this probability."""
_FEW_AGREE = 0.2
"""… and if at most this share of its nearest neighbours has it."""
_LISTED = 20
_FEW_GROUPS = 10


@dataclass(frozen=True)
class Found:
    """What the checks found; `dataset` holds what can be trained on."""

    dataset: Dataset
    facts: dict[str, Any]
    warnings: list[str]
    features: NDArray[np.float32]
    """Simple features, (n, d), one row per item."""
    linear: NDArray[np.float64] | None
    """Cross-validated probabilities of the linear model (n, classes), or None where there are too few groups."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Probe:
    item: Item
    digest: str
    shape: tuple[int, ...]
    features: NDArray[np.float32]
    thumbnail: NDArray[np.float32]


def check(dataset: Dataset, seed: int, step: Callable[[int, int], None] = lambda _done, _of: None) -> Found:
    """Read every file once and say what is noteworthy.

    Args:
        dataset: as it was loaded.
        seed: of the cross-validation.
        step: is told how many files of how many are done.
    """
    probes, unreadable = _probes(dataset, step)
    kept = dataset.only(probe.item for probe in probes)
    same = _clusters_of_equal([probe.digest for probe in probes])
    contradicting = [c for c in same if len({probes[i].item.label for i in c}) > 1]
    alike = _near_duplicates(probes) if dataset.media == "image" else []
    joined = _joined(kept, same + (alike if _are_copies(alike, len(probes)) else []))
    features = np.stack([probe.features for probe in probes])
    labels = np.array([joined.labels.index(item.label) for item in joined.items])
    groups = [item.group for item in joined.items]
    linear = simple.cross_validated(features, labels, groups, seed)
    doubted = [] if linear is None else _doubted(joined, labels, linear, simple.neighbours(features, labels, groups))
    facts = {
        "files": len(probes),
        "classes": joined.counts,
        "groups": len(set(groups)),
        "unit": joined.unit,
        "sizes": _sizes(probes, dataset.media),
        "unreadable": len(unreadable),
        "exact_duplicates": sum(len(cluster) - 1 for cluster in same),
        "contradicting_duplicates": [[probes[i].item.file for i in cluster] for cluster in contradicting][:_LISTED],
        "near_duplicates": sum(len(cluster) - 1 for cluster in alike),
        "near_duplicates_across_groups": sum(len({kept.items[i].group for i in c}) > 1 for c in alike),
        "doubted_labels": doubted[:_LISTED],
        "doubted": len(doubted),
        "masks": sum(item.mask is not None for item in joined.items),
    }
    warnings = _warnings(joined, facts, unreadable, merged=_are_copies(alike, len(probes)))
    return Found(joined, facts, warnings, features, linear, unreadable)


def doubted_by_network(found: Found, places: NDArray[np.intp], chances: NDArray[np.float64]) -> Found:
    """Return what was found with the word of better judges: networks that never saw the groups of what they judge.

    Args:
        found: by the linear model and the neighbours, which see little of small marks.
        places: (n,) which items were judged; of the others the first doubts stay.
        chances: (n, classes) calibrated probabilities of those items; a row of NaN was not judged.
    """
    items, names = found.dataset.items, found.dataset.labels
    judged = {items[place].file for place in places}
    given = chances[np.arange(len(places)), [names.index(items[place].label) for place in places]]
    denied = [
        {
            "file": items[place].file,
            "label": items[place].label,
            "looks_like": names[int(chances[row].argmax())],
            "p_label": round(float(given[row]), 4),
        }
        for row, place in enumerate(places)
        if given[row] < _DOUBT_BELOW
    ]
    kept = [one for one in found.facts["doubted_labels"] if one["file"] not in judged]
    doubts = sorted([*denied, *kept], key=lambda one: one["p_label"])
    facts = {**found.facts, "doubted_labels": doubts[:_LISTED], "doubted": len(doubts)}
    before = _doubts_in_words(found.facts) if found.facts["doubted_labels"] else None
    warnings = [line for line in found.warnings if line != before]
    return replace(found, facts=facts, warnings=[*warnings, *([_doubts_in_words(facts)] if doubts else [])])


def _doubts_in_words(facts: dict[str, Any]) -> str:
    return f"{facts['doubted']} labels look wrong, the first: {facts['doubted_labels'][0]['file']}"


def _probes(dataset: Dataset, step: Callable[[int, int], None]) -> tuple[list[_Probe], list[tuple[str, str]]]:
    probes, unreadable = [], []
    for number, item in enumerate(dataset.items):
        window = read(item)
        if window.data is None:
            unreadable.append((item.file, window.problem or "no data"))
        else:
            digest = hashlib.sha256(item.path.read_bytes()).hexdigest()
            if dataset.media == "image":
                features, thumbnail = simple.of_picture(window.data), simple.thumbnail(window.data)
                shape = (window.data.shape[1], window.data.shape[0])
            else:
                rate_hz = window.sample_rate_hz or 8000
                features, thumbnail = simple.of_sound(window.data, rate_hz), np.zeros(0, np.float32)
                shape = (len(window.data), rate_hz)
            probes.append(_Probe(item, digest, shape, features, thumbnail))
        step(number + 1, len(dataset.items))
    return probes, unreadable


def _clusters_of_equal(digests: Sequence[str]) -> list[list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, digest in enumerate(digests):
        places[digest].append(place)
    return [cluster for cluster in places.values() if len(cluster) > 1]


def _near_duplicates(probes: list[_Probe]) -> list[list[int]]:
    thumbnails = np.stack([probe.thumbnail for probe in probes])
    parent = list(range(len(probes)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for start in range(0, len(probes), 512):
        rows, columns = np.nonzero(thumbnails[start : start + 512] @ thumbnails.T > _ALIKE)
        for row, column in zip(rows + start, columns, strict=True):
            if row < column:
                parent[root(int(column))] = root(int(row))
    clusters: dict[int, list[int]] = defaultdict(list)
    for place in range(len(probes)):
        clusters[root(place)].append(place)
    return [cluster for cluster in clusters.values() if len(cluster) > 1]


def _are_copies(clusters: list[list[int]], count: int) -> bool:
    return max((len(cluster) for cluster in clusters), default=0) <= max(4, _LARGEST_ALIKE * count)


def _joined(dataset: Dataset, clusters: list[list[int]]) -> Dataset:
    """Give all groups that share a cluster one name."""
    other = {item.group: item.group for item in dataset.items}

    def final(name: str) -> str:
        while other[name] != name:
            name = other[name]
        return name

    for cluster in clusters:
        names = sorted({final(dataset.items[place].group) for place in cluster})
        for name in names[1:]:
            other[name] = names[0]
    return dataset.only(replace(item, group=final(item.group)) for item in dataset.items)


def _doubted(
    dataset: Dataset, labels: NDArray[np.intp], linear: NDArray[np.float64], agreeing: NDArray[np.float64]
) -> list[dict[str, Any]]:
    given = linear[np.arange(len(labels)), labels]
    places = np.flatnonzero((given < _DOUBT_BELOW) & (agreeing <= _FEW_AGREE))
    return [
        {
            "file": dataset.items[i].file,
            "label": dataset.items[i].label,
            "looks_like": dataset.labels[int(linear[i].argmax())],
            "p_label": round(float(given[i]), 4),
        }
        for i in sorted(places, key=lambda i: given[i])
    ]


def _sizes(probes: list[_Probe], media: str) -> dict[str, Any]:
    if media == "audio":
        seconds = np.array([probe.shape[0] / probe.shape[1] for probe in probes])
        rates = Counter(probe.shape[1] for probe in probes)
        spread = [round(float(q), 3) for q in np.quantile(seconds, [0, 0.5, 0.95, 1])]
        return {"seconds_min_median_p95_max": spread, "rates_hz": {str(rate): n for rate, n in rates.most_common()}}
    widths, heights = np.array([p.shape[0] for p in probes]), np.array([p.shape[1] for p in probes])
    return {
        "width_min_median_max": [int(q) for q in np.quantile(widths, [0, 0.5, 1])],
        "height_min_median_max": [int(q) for q in np.quantile(heights, [0, 0.5, 1])],
        "aspect_min_median_max": [round(float(q), 3) for q in np.quantile(widths / heights, [0, 0.5, 1])],
    }


def _warnings(dataset: Dataset, facts: dict[str, Any], unreadable: list[tuple[str, str]], *, merged: bool) -> list[str]:
    found = [f"{file} cannot be read and is left out: {why}" for file, why in unreadable[:_LISTED]]
    if facts["contradicting_duplicates"]:
        first = " = ".join(facts["contradicting_duplicates"][0])
        found.append(f"{len(facts['contradicting_duplicates'])} times the same file has two labels: {first}")
    if facts["exact_duplicates"]:
        found.append(f"{facts['exact_duplicates']} files are there twice; copies are kept on one side of every split")
    if facts["near_duplicates"] and not merged:
        found.append("nearly all pictures are alike, as under a fixed camera: near duplicates cannot be told apart")
    elif facts["near_duplicates"]:
        found.append(f"{facts['near_duplicates']} pictures are nearly the same as others; they are kept together")
    if facts["doubted_labels"]:
        found.append(_doubts_in_words(facts))
    if not dataset.grouped:
        found.append(
            f"nobody said which {dataset.unit}s show the same part, so each counts as a part of its own: if a part was "
            "taken several times, every figure here is too good; name the parts in metadata.csv or by --group"
        )
    few = [label for label in dataset.labels if len(_groups_of(dataset, label)) < 3]
    if few:
        found.append(f"fewer than 3 independent {dataset.unit}s show: {', '.join(few)}")
    elif facts["groups"] < _FEW_GROUPS:
        found.append(f"only {facts['groups']} independent {dataset.unit}s: figures and bounds will be wide")
    return found


def _groups_of(dataset: Dataset, label: str) -> set[str]:
    return {item.group for item in dataset.items if item.label == label}
