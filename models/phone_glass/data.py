"""Makes the labelled sets that the network is trained and proved on, and keeps them between runs.

Rules:
- A picture goes through JPEG and `edge.preprocess`, exactly as on a device.
- Sets differ in their seed, so no part is in two of them; all pictures of a part carry the part's number.
- Under a failing lamp the honest answer is "unsure": such pictures train with half their weight on `good`.
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.preprocess import image_tensor
from edge.wire.manifest import ImageInput
from models.phone_glass.defects import U8
from models.phone_glass.generate import encoded
from models.phone_glass.generator import HEIGHT, WIDTH, Studio
from models.phone_glass.parts import FINISHES, LABELS, LIGHTS, Light, Part, make_part, working_light

INPUT = ImageInput(width=160, height=120, color="rgb")
CELL = 32
"""Side of a cell of the truth grid in pixels of the photograph; one cell of the network's last maps."""
_SHOWS = 64
"""A cell holds the defect where it reaches a quarter of its strength."""
_FAILING_GAIN = (0.08, 0.55)
"""Exposure of a failing lamp: from hardly anything to about half of the least that stations are set up with."""
_SOURCES = ("parts.py", "defects.py", "generator.py", "generate.py", "data.py")


@dataclass(frozen=True)
class SetSpec:
    """Which set is meant; the same spec gives the same set."""

    seed: int
    parts: int
    shots: int
    """Pictures per part, each under a light of its own."""
    defect_share: float
    failing_share: float = 0.0
    """Share of pictures under a failing lamp."""


@dataclass(frozen=True)
class Set:
    """Pictures with their truth: values (n, 120, 160, 3) uint8 RGB; the other fields (n,)."""

    values: U8
    labels: NDArray[np.intp]
    parts: NDArray[np.intp]
    finishes: NDArray[np.intp]
    """Indices into `FINISHES`."""
    readable: NDArray[np.bool_]
    """Whether the lamp was good enough to judge."""
    cells: NDArray[np.bool_]
    """(n, 15, 20): where a defect shows, on a grid of 32 × 32 pixels of the photograph."""

    def digest(self) -> str:
        """Return a SHA-256 over values and labels, in hexadecimal."""
        digest = hashlib.sha256(self.values.tobytes())
        digest.update(self.labels.astype("<i4").tobytes())
        return digest.hexdigest()


def load_or_make(spec: SetSpec, work: Path) -> Set:
    """Return the set, from the work folder if it was made before by the same code."""
    path = work / f"set-{_key(spec)}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        made = make(spec)
        beside = path.with_suffix(".part.npz")
        np.savez(beside, **{name: getattr(made, name) for name in Set.__dataclass_fields__})
        beside.replace(path)
    with np.load(path) as stored:
        return Set(**{name: stored[name] for name in Set.__dataclass_fields__})


def make(spec: SetSpec) -> Set:
    """Photograph the set (about 25 pictures a second)."""
    studio = Studio()
    values, cells, rows = [], [], []
    for number in range(spec.parts):
        part = make_part(spec.seed, number, spec.defect_share)
        for shot in range(spec.shots):
            light, readable = _lamp(spec, number, shot)
            picture, mask = studio.photograph_with_truth(part, light, shot)
            values.append(image_tensor(decoded(encoded(picture)), INPUT)[0])
            cells.append(_cells(mask))
            rows.append((LABELS.index(part.label), number, FINISHES.index(part.finish), readable))
    labels, numbers, finishes, lit = (np.asarray(column) for column in zip(*rows, strict=True))
    return Set(
        values=np.stack(values),
        labels=labels.astype(np.intp),
        parts=numbers.astype(np.intp),
        finishes=finishes.astype(np.intp),
        readable=lit.astype(np.bool_),
        cells=np.stack(cells),
    )


def seen(studio: Studio, part: Part, light: Light, shot: int) -> U8:
    """Return a picture as a device decodes it: (480, 640, 3) uint8, BGR."""
    return decoded(encoded(studio.photograph(part, light, shot)))


def decoded(jpeg: bytes) -> U8:
    """Return the picture in a JPEG, BGR."""
    return np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def soft_targets(examples: Set) -> NDArray[np.float32]:
    """Return (n, labels) target probabilities: the label, or for unreadable pictures half good and half any defect."""
    targets = np.eye(len(LABELS), dtype=np.float32)[examples.labels]
    good = LABELS.index("good")
    unsure = np.full(len(LABELS), 0.5 / (len(LABELS) - 1), np.float32)
    unsure[good] = 0.5
    targets[~examples.readable] = unsure
    return targets


def _cells(mask: U8) -> NDArray[np.bool_]:
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    return np.asarray(mask.reshape(rows, CELL, columns, CELL).max((1, 3)) > _SHOWS)


def _lamp(spec: SetSpec, number: int, shot: int) -> tuple[Light, bool]:
    chance = np.random.default_rng([spec.seed, number, shot, 3])
    if chance.random() < spec.failing_share:
        gain, noise = chance.uniform(*_FAILING_GAIN), chance.uniform(1.0, 3.0)
        return replace(LIGHTS["dim"], name="failing", gain=float(gain), noise=float(noise)), False
    return working_light(chance), True


def _key(spec: SetSpec) -> str:
    digest = hashlib.sha256(repr(spec).encode())
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]
