"""Holds two versions of a model side by side, from their manifests: what to know before one replaces the other; pure.

Rules:
- Figures are those that the bundles state of themselves; they compare only if they come from the same data, and the
  comparison says whether they do.
- Nothing is left out: a figure that only one of them states is a row as well. Long lists are shown by their length.
- Figures stand in the section of what they say: per class, per slice, speed, the rest.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_ROWS = 2000
"""Figures of one section: some models state hundreds."""
_PER_CLASS = re.compile(r"(^|\.)(recall|by_class|labels?|boxes|kinds?|per_class|false_alarms_by_label)\.")
_PER_SLICE = re.compile(r"(^|\.)(slices?|by_\w+|groups?|where|strange|found|positions?\w*|boards?\w*|accents?)\.")
_SPEED = re.compile(r"(^|\.)(speeds?|estimate|latency\w*)(\.|$)|_ms(\.|$)|memory")
_INTERVAL = ("value", "low", "high")


@dataclass(frozen=True)
class Row:
    """One thing about both versions; None where one does not state it."""

    what: str
    first: Any
    second: Any

    @property
    def same(self) -> bool:
        """Whether both say the same."""
        return bool(self.first == self.second)

    @property
    def difference(self) -> float | None:
        """Second less first, where both are numbers."""
        numbers = [value for value in (self.first, self.second) if _is_number(value)]
        return round(numbers[1] - numbers[0], 9) if len(numbers) == 2 else None

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return {**asdict(self), "same": self.same, "difference": self.difference}


@dataclass(frozen=True)
class Section:
    """Rows about one thing."""

    title: str
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return {"title": self.title, "rows": [row.as_json() for row in self.rows]}


@dataclass(frozen=True)
class Comparison:
    """Two versions of a model."""

    same_data: bool
    """Whether both figures come from the same data set."""
    sections: list[Section]

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        return {"same_data": self.same_data, "sections": [section.as_json() for section in self.sections]}


def compare(first: Mapping[str, Any], second: Mapping[str, Any], sizes_bytes: tuple[int, int]) -> Comparison:
    """Return two versions side by side.

    Args:
        first, second: their manifests, as documents.
        sizes_bytes: of the bundle files.
    """
    data = [(manifest.get("lineage") or {}).get("dataset_digest") for manifest in (first, second)]
    figures = _by_kind(_metrics(first), _metrics(second))
    sections = [
        Section("Files", [Row("bundle, bytes", *sizes_bytes), *_rows(_files(first), _files(second))]),
        Section("Labels", _labels(first, second)),
        Section("Input", _flat_rows(first.get("input"), second.get("input"))),
        Section("Thresholds", _rows(_policy(first), _policy(second))),
        Section("Guarantee", _rows(_guarantee(first), _guarantee(second))),
        Section("Calibration", _flat_rows(first.get("calibration"), second.get("calibration"))),
        Section("Per class", figures["class"]),
        Section("Per slice", figures["slice"]),
        Section("Latency and memory", [*_flat_rows(first.get("requires"), second.get("requires")), *figures["speed"]]),
        Section("Other figures", figures["other"]),
        Section("Audit", _rows(_audit(first), _audit(second))),
        Section("Lineage", _flat_rows(first.get("lineage"), second.get("lineage"))),
    ]
    return Comparison(data[0] is not None and data[0] == data[1], [one for one in sections if one.rows])


def flat(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give the values of a nested document by dotted name; an interval as one text, long lists by their length."""
    if isinstance(document, Mapping):
        if set(_INTERVAL) <= document.keys() and _is_number(document["value"]):
            yield prefix, document["value"]
            yield f"{prefix}, interval", f"{document['low']:.4g} to {document['high']:.4g}"
            return
        for name, value in document.items():
            yield from flat(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(document, list | tuple):
        plain = len(document) <= 12 and not any(isinstance(value, Mapping | list | tuple) for value in document)
        yield prefix, ", ".join(str(value) for value in document) if plain else f"{len(document)} entries"
    elif document is not None:
        yield prefix, document


# ── private, in call order ──────────────────────────────────────────────────────────────────────────────────────


def _metrics(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flat(manifest.get("metrics") or {}))


def _by_kind(first: dict[str, Any], second: dict[str, Any]) -> dict[str, list[Row]]:
    kinds: dict[str, list[Row]] = {"class": [], "slice": [], "speed": [], "other": []}
    for row in _rows(first, second):
        kind = (
            "class"
            if _PER_CLASS.search(row.what)
            else "slice"
            if _PER_SLICE.search(row.what)
            else "speed"
            if _SPEED.search(row.what)
            else "other"
        )
        if len(kinds[kind]) < MAX_ROWS:
            kinds[kind].append(row)
    return kinds


def _rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    return [Row(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second])]


def _flat_rows(first: Any, second: Any) -> list[Row]:
    return _rows(dict(flat(first or {})), dict(flat(second or {})))


def _files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {name: entry.get("size_bytes") for name, entry in (manifest.get("files") or {}).items()}
    found: dict[str, Any] = {}
    for runtime, model in (manifest.get("models") or {}).items():
        found[f"{runtime}, bytes"] = sizes.get(model.get("file"))
        found[f"{runtime}, precision"] = model.get("precision")
    return {"prefers": manifest.get("prefer"), **found}


def _labels(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    """Return every label with its place, which is what a network's outputs are told apart by."""
    places: list[dict[str, Any]] = [
        {label: number for number, label in enumerate(manifest.get("labels") or [])} for manifest in (first, second)
    ]
    return _rows(*places)


def _policy(manifest: Mapping[str, Any]) -> dict[str, Any]:
    policy = {name: value for name, value in (manifest.get("policy") or {}).items() if name != "guarantee"}
    return {name: value for name, value in flat(policy) if ".guarantee." not in name}


def _guarantee(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return dict(flat((manifest.get("policy") or {}).get("guarantee") or {}))


def _audit(manifest: Mapping[str, Any]) -> dict[str, Any]:
    audit = manifest.get("audit") or {}
    found = {name: audit[name] for name in ("passed", "examples", "groups", "judged_by") if name in audit}
    for limit in audit.get("limits") or []:
        found[str(limit.get("limit"))] = _limit_words(limit)
    return found


def _limit_words(limit: Mapping[str, Any]) -> str:
    answer = "passed" if limit.get("passed") else "failed"
    value = limit.get("value")
    return f"{answer}, {value:.4g}" if _is_number(value) else answer


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
