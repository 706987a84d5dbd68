"""Reads the examples that a foreign model is calibrated on: class folders, or files without labels.

Rules:
- Folders are matched with labels by their letters and digits; no match at all means that nothing is labelled.
- Files that cannot be read or judged are counted and named, the others are used.
- At most `MOST` examples, drawn evenly and always the same, so that a large folder takes minutes and not hours.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.preprocess import preprocess
from edge.sources.files import media_kind, read_window
from edge.values import Window
from edge.wire.manifest import GOOD_LABEL, AudioInput, ImageInput
from export import dataset
from export.foreign.labels import plain
from export.recipe import Labelled, Sound

MOST = 4000
_RAW_MOST = 300
"""Raw inputs that are kept for gate limits and drift: pictures are large."""
_MASK_END = ".mask.png"


@dataclass(frozen=True)
class Examples:
    """Preprocessed values (n, …), labels (n,) with −1 for none, groups (n,), and some raw inputs."""

    values: NDArray[Any]
    labels: NDArray[np.intp]
    groups: NDArray[np.str_]
    raw: Sequence[NDArray[np.uint8]] | Sequence[Sound]
    unit: str
    grouped: bool
    digest: str
    notes: list[str]

    @property
    def labelled(self) -> bool:
        """Whether there is anything to prove thresholds on."""
        return bool(np.any(self.labels >= 0))

    def heldout(self) -> Labelled:
        """Return the labelled examples, or all of them if none is."""
        if not self.labelled:
            return Labelled(self.values, np.zeros(len(self.labels), np.intp), self.groups)
        kept = np.flatnonzero(self.labels >= 0)
        return Labelled(self.values[kept], self.labels[kept], self.groups[kept])


def read_examples(
    root: Path,
    spec: ImageInput | AudioInput,
    labels: list[str],
    *,
    good: str | None,
    group: str | None,
) -> Examples:
    """Return what a folder holds, as the model's preprocessing makes it.

    Args:
        root: class folders, a `metadata.csv`, or a folder of files.
        spec: the bundle's input.
        labels: of the model, with `good` for good parts.
        good: what the folder of good parts is called, if not `good`.
        group: pattern over file names that names the unit.

    Raises:
        ConfigError: there is nothing to read, or folders that are no labels beside those that are.
    """
    if not root.is_dir():
        raise ConfigError(f"--calibration {root}: expected a folder with examples, there is none")
    found, unit, grouped, notes = _listed(root, spec, labels, good, group)
    found = _some(found)
    values, raw, kept, unusable = _read(found, spec)
    if not kept:
        raise ConfigError(
            f"--calibration {root}: none of {len(found)} files can be judged: {unusable[0] if unusable else 'no files'}"
        )
    if unusable:
        notes.append(f"{len(unusable)} files left out, the first: {unusable[0]}")
    digest = hashlib.sha256()
    for path, label, _ in kept:
        digest.update(f"{path.relative_to(root)}\0{label}\0".encode() + path.read_bytes())
    return Examples(
        values=np.concatenate(values),
        labels=np.array([label for _, label, _ in kept], np.intp),
        groups=np.array([name for _, _, name in kept]),
        raw=raw,
        unit=unit,
        grouped=grouped,
        digest=digest.hexdigest(),
        notes=notes,
    )


def only_sounds(root: Path) -> bool:
    """Return whether a folder holds sounds and no pictures."""
    kinds = {media_kind(path) for path in root.rglob("*") if not path.name.startswith(".")}
    return "audio" in kinds and "image" not in kinds


_Entry = tuple[Path, int, str]
"""File, label (−1 for none), group."""


def _listed(
    root: Path, spec: ImageInput | AudioInput, labels: list[str], good: str | None, group: str | None
) -> tuple[list[_Entry], str, bool, list[str]]:
    single = "picture" if spec.kind == "image" else "recording"
    known = {plain(label): index for index, label in enumerate(labels)}
    if good is not None:
        known[plain(good)] = labels.index(GOOD_LABEL)
    files = [path for path in sorted(root.rglob("*")) if _usable(path, root, spec.kind)]
    if not files:
        other = "sounds (.wav)" if spec.kind == "audio" else "pictures"
        raise ConfigError(f"--calibration {root}: expected {other}, found none")
    table = (root / dataset.METADATA).is_file()
    classes = {path.relative_to(root).parts[0] for path in files if path.parent != root}
    matched = {name for name in classes if plain(name) in known}
    if not table and not matched:
        notes = []
        if classes:
            notes.append(f"no folder is called like a label ({', '.join(sorted(classes)[:5])} …): nothing is labelled")
        return [(path, -1, str(path.relative_to(root))) for path in files], single, False, notes
    data = dataset.load(root, "keyword", good=None, group=group) if table or len(matched) > 1 else None
    if data is None or data.media != spec.kind:
        return _from_folders(files, root, known), single, False, []
    strangers = sorted({item.label for item in data.items if plain(item.label) not in known})
    if strangers:
        raise ConfigError(
            f"--calibration {root}: {', '.join(strangers[:8])}: the model has no such label",
            hint=f"rename or move the folders; labels are {', '.join(labels[:12])}{' …' if len(labels) > 12 else ''}",
        )
    entries = [(item.path, known[plain(item.label)], item.group) for item in data.items]
    return entries, data.unit if data.grouped else single, data.grouped, []


def _from_folders(files: list[Path], root: Path, known: dict[str, int]) -> list[_Entry]:
    return [
        (path, known.get(plain(path.relative_to(root).parts[0]), -1), str(path.relative_to(root))) for path in files
    ]


def _usable(path: Path, root: Path, kind: str) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return not hidden and path.is_file() and not path.name.endswith(_MASK_END) and media_kind(path) == kind


def _some(found: list[_Entry]) -> list[_Entry]:
    if len(found) <= MOST:
        return found
    order = np.sort(np.random.default_rng(1).permutation(len(found))[:MOST])
    return [found[int(index)] for index in order]


def _read(
    found: list[_Entry], spec: ImageInput | AudioInput
) -> tuple[list[NDArray[Any]], list[Any], list[_Entry], list[str]]:
    values: list[NDArray[Any]] = []
    raw: list[Any] = []
    kept: list[_Entry] = []
    unusable: list[str] = []
    every = max(1, -(-len(found) // _RAW_MOST))
    for number, entry in enumerate(found):
        window = read_window(entry[0], source="calibration")
        problem = _problem(window, spec)
        if problem is not None:
            unusable.append(f"{entry[0].name}: {problem}")
            continue
        values.append(preprocess(window.data, window.sample_rate_hz, spec))
        kept.append(entry)
        if number % every == 0 or not raw:
            raw.append((window.data, window.sample_rate_hz) if spec.kind == "audio" else window.data)
    return values, raw, kept, unusable


def _problem(window: Window, spec: ImageInput | AudioInput) -> str | None:
    if window.data is None:
        return window.problem or "no data"
    if isinstance(spec, AudioInput):
        rate_hz = window.sample_rate_hz or spec.sample_rate_hz
        return "too short" if len(window.data) < spec.min_s * rate_hz else None
    return "too small" if min(window.data.shape[:2]) < spec.min_side else None
