"""Plans a fit: the network's input, how many copies and steps the time allows, and who is judged by whom. Pure.

Rules:
- The plan comes from the data, the options and fixed costs, never from a clock: the same command makes the same bundle.
- Where the data brings its own test split, that proves; else every group is judged by a network that never saw it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.wire.manifest import AudioInput, ImageInput
from edge.wire.terms import Task
from export.dataset import Dataset
from export.recipe import Precision, Runtime

FOLDS = 3
_DEFAULT_SIDE = 320
_LEAST_SIDE = 128
"""Smaller pictures are enlarged to about this: the pretrained body knows things of some pixels' size."""
_GRID = 32
_ASPECT_SPREAD = 1.15
"""Pictures whose shapes differ by more than this are fitted into a frame and not stretched."""
_BUDGET_SHARE = 0.75
"""Of the time, for copies and training; the rest checks, quantizes, measures."""
_SPEED_UP = {1: 1.0, 2: 1.6}
_COPY_MS, _STEP_MS = 10.0, 15.0
"""Of a picture of 320 × 320 on one core: the frozen part, and one example of a training step (measured)."""
_SOUND_COPY_MS, _SOUND_STEP_MS = 10.0, 0.6
"""Of a second of sound on one core: another room with its features, and one example of a training step (measured)."""
_FULL_AREA = _DEFAULT_SIDE**2


@dataclass(frozen=True)
class Options:
    """What a person asked for."""

    data: Path
    task: Task
    name: str
    version: str = "1.0.0"
    profile: str | None = None
    alpha: float = 0.01
    delta: float = 0.05
    out: Path = Path()
    seed: int = 1
    minutes: float = 12.0
    good: str | None = None
    group: str | None = None
    side: int | None = None
    """About the network's input, pixels; None chooses."""
    threads: int = 2
    limits: Path | None = None
    against: Path | None = None
    key: Path | None = None
    prefer: Runtime | None = None
    """The engine that devices shall prefer; None measures, see `export.formats`."""
    precision: Precision | None = None
    """Of the shipped network; None measures."""
    device_threads: int = 1
    """Of the engine on the device, `budget.threads` of its profile: with so many it is measured."""

    def settings(self) -> dict[str, Any]:
        """Return what changes the result, as plain values."""
        names: tuple[str, ...] = (
            "task",
            "name",
            "version",
            "profile",
            "alpha",
            "delta",
            "seed",
            "minutes",
            "good",
            "group",
            "side",
        )
        given = {name: value for name, value in asdict(self).items() if name in (*names, "threads")}
        return {name: value for name, value in given.items() if value is not None}

    def format(self) -> dict[str, Any]:
        """Return what was asked about engine and precision. What ships is what counts, however it was decided."""
        return {"prefer": self.prefer, "precision": self.precision, "device_threads": self.device_threads}


@dataclass(frozen=True)
class Plan:
    """How the network is trained."""

    input: ImageInput | AudioInput
    copies: int
    """Changed copies of each file, itself included."""
    fold_steps: int
    steps: int
    batch: int
    folds: int
    """0 where the data brings its own test split."""
    seconds: dict[str, float]
    """About how long each stage takes."""

    def key(self, origin: str, options: Options) -> str:
        """Return a name for the work on this origin (data and code) with these settings."""
        text = json.dumps([origin, options.settings(), self.input.model_dump()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


SIDES = (_DEFAULT_SIDE, 480, 640)
"""Sizes of the network's input that are tried, where pictures are larger than the first."""


def sides_to_try(facts: dict[str, Any], options: Options) -> dict[int, ImageInput]:
    """Return the inputs among which a probe may choose; none where a person has chosen or pictures are small."""
    if options.side is not None or "aspect_min_median_max" not in facts["sizes"]:
        return {}
    native = (facts["sizes"]["width_min_median_max"][1] * facts["sizes"]["height_min_median_max"][1]) ** 0.5
    sides = [side for side in SIDES if side <= native * 1.05]
    return {side: picture_input(facts["sizes"], side) for side in sides} if len(sides) > 1 else {}


def make(dataset: Dataset, facts: dict[str, Any], options: Options) -> Plan:
    """Return the plan for a data set.

    Args:
        dataset: checked.
        facts: what the checks found; its `sizes` count here.
        options: what a person asked for.
    """
    count = len(dataset.items)
    folds = 0 if any(item.split == "test" for item in dataset.items) else FOLDS
    speed = _SPEED_UP.get(options.threads, 2.0)
    budget_ms = options.minutes * 60_000 * _BUDGET_SHARE * speed
    networks = folds + 1.3
    spec: ImageInput | AudioInput
    if dataset.media == "image":
        spec = picture_input(facts["sizes"], options.side)
        scale = spec.width * spec.height / _FULL_AREA
        copy_ms, step_ms, batch, most = _COPY_MS * scale, _STEP_MS * scale, 24, 300
    else:
        spec = sound_input(facts["sizes"])
        copy_ms, step_ms, batch, most = _SOUND_COPY_MS, _SOUND_STEP_MS * spec.window_s, 64, 2000
    wanted = int(np.clip(round(5000 / count), 3, 16))
    copies = max(1, min(wanted, int(0.35 * budget_ms / (count * copy_ms))))
    rest_ms = budget_ms - count * copies * copy_ms
    fold_steps = int(np.clip(rest_ms / (batch * step_ms * networks), 25, most)) // 25 * 25
    steps = round(fold_steps * 1.3 / 25) * 25 if folds else fold_steps
    each_s = fold_steps * batch * step_ms / 1000 / speed
    seconds = {
        "checking the data": count * 0.02 + 2,
        "making changed copies": count * copies * copy_ms / 1000 / speed + 1,
        "learning ten by heart": 4.0,
        **{f"training without part {fold + 1} of {folds}": each_s for fold in range(folds)},
        "training": each_s * steps / max(fold_steps, 1),
        "quantizing and measuring": 30 + count * 0.02,
        "packing": 15.0,
    }
    return Plan(spec, copies, fold_steps, steps, batch, folds, seconds)


def picture_input(sizes: dict[str, Any], side: int | None) -> ImageInput:
    """Return the network's input for pictures of these sizes: their shape, at most about 320 × 320 pixels."""
    narrow, aspect, wide = sizes["aspect_min_median_max"]
    width, height = sizes["width_min_median_max"][1], sizes["height_min_median_max"][1]
    letterbox = wide / narrow > _ASPECT_SPREAD**2
    area = float(side or min(max((width * height) ** 0.5, _LEAST_SIDE), _DEFAULT_SIDE)) ** 2
    rows = max(round((area / aspect) ** 0.5 / _GRID), 2) * _GRID
    columns = max(round((area * aspect) ** 0.5 / _GRID), 2) * _GRID
    return ImageInput(
        width=columns,
        height=rows,
        resize="letterbox" if letterbox else "stretch",
        min_side=min(16, *sizes["width_min_median_max"][:1], *sizes["height_min_median_max"][:1]),
    )


def sound_input(sizes: dict[str, Any]) -> AudioInput:
    """Return the features for sounds of these lengths and rates: 8 or 16 kHz, one to three seconds."""
    rate = max(sizes["rates_hz"], key=lambda name: int(sizes["rates_hz"][name]))
    seconds = float(np.clip(np.ceil(sizes["seconds_min_median_p95_max"][2] * 4 - 0.2) / 4, 1.0, 3.0))
    if int(rate) >= 16000:
        return AudioInput(
            sample_rate_hz=16000, window_s=seconds, frame_ms=32, hop_ms=16, mel_bands=40, low_hz=40, high_hz=7600
        )
    return AudioInput(sample_rate_hz=8000, window_s=seconds)


def folds_of(dataset: Dataset, folds: int, seed: int) -> NDArray[np.intp]:
    """Return the fold of each item, −1 for those that are only trained on; no group lies in two folds.

    Raises:
        ConfigError: there are too few groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([dataset.labels.index(item.label) for item in dataset.items])
    groups = [item.group for item in dataset.items]
    if len(set(groups)) < 2:
        raise ConfigError(
            f"expected at least two independent {dataset.unit}s, got one",
            hint="without a second one nothing can be said about parts never seen; take pictures of more",
        )
    parts = StratifiedGroupKFold(min(folds, len(set(groups))), shuffle=True, random_state=seed)
    found = np.full(len(labels), -1, np.intp)
    for number, (_, test) in enumerate(parts.split(np.zeros(len(labels)), labels, groups)):
        found[test] = number
    return found


def share_of_groups(labels: NDArray[np.intp], groups: list[str], parts: int, seed: int) -> NDArray[np.bool_]:
    """Return which examples belong to one of `parts` about equal shares of the groups, stratified by label."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(parts, len(set(groups)))
    chosen = np.zeros(len(labels), bool)
    _, test = next(iter(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)))
    chosen[test] = True
    return chosen
