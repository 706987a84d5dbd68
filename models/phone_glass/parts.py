"""What a phone back is: its finish, its defect, and where they are; and the lights it may be seen under. Pure.

Rules:
- A part is fixed by (seed, number): the same part under another light has the same defect in the same place.
- Severity runs from 0 (hardly there) to 1 (nobody could miss it); low ones are rare but real, so that a model has
  something to be unsure of.
"""

from dataclasses import dataclass, replace

import numpy as np

LABELS = ["good", "scratch", "crack", "dent", "pit_mark", "discoloration"]
DEFECTS = LABELS[1:]


@dataclass(frozen=True)
class Finish:
    """Colour (blue, green, red), how strongly it mirrors the lamp (0…1), and the depth of its grain in grey levels."""

    name: str
    color: tuple[int, int, int]
    gloss: float
    grain: float


FINISHES = (
    Finish("graphite", (72, 68, 66), 0.8, 1.0),
    Finish("silver", (196, 196, 192), 0.5, 1.5),
    Finish("midnight", (92, 62, 44), 1.0, 0.8),
    Finish("sage", (142, 164, 148), 0.3, 3.0),
    Finish("rose", (168, 160, 206), 0.6, 1.5),
    Finish("gold", (128, 170, 196), 0.6, 1.5),
    Finish("porcelain", (222, 224, 224), 0.7, 0.8),
    Finish("violet", (158, 112, 128), 0.4, 2.5),
)


NEW_FINISHES = (
    Finish("teal", (128, 120, 60), 0.9, 2.0),
    Finish("copper", (70, 110, 180), 1.0, 4.0),
)
"""A new batch of material: other colours, more gloss, coarser grain; no training set holds them."""


def _drawn_finishes(count: int, seed: int) -> tuple[Finish, ...]:
    rng = np.random.default_rng(seed)
    finishes = []
    for number in range(count):
        blue, green, red = (int(value) for value in rng.integers(40, 225, 3))
        gloss, grain = round(float(rng.uniform(0.3, 1)), 2), round(float(rng.uniform(0.8, 4)), 1)
        finishes.append(Finish(f"drawn-{number}", (blue, green, red), gloss, grain))
    return tuple(finishes)


DRAWN_FINISHES = _drawn_finishes(16, seed=5)
"""Materials that nobody chose, drawn after all else was settled: colours from dark to bright, any gloss and grain."""


@dataclass(frozen=True)
class Light:
    """A lamp: exposure, colour (blue, green, red), how uneven it is (0…1), how strong its mirror image is, noise."""

    name: str
    gain: float
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    uneven: float = 0.15
    glare: float = 0.5
    noise: float = 1.0


LIGHTS = {
    light.name: light
    for light in (
        Light("normal", 1.0),
        Light("warm", 0.95, (0.84, 0.97, 1.08)),
        Light("cool", 0.98, (1.10, 1.01, 0.90)),
        Light("bright", 1.15, glare=0.8),
        Light("side", 0.95, uneven=0.45, glare=0.3),
        Light("dim", 0.42, (0.95, 0.98, 1.04), uneven=0.3, glare=0.3, noise=2.2),
        Light("dark", 0.16, uneven=0.3, glare=0.2, noise=3.0),
    )
}
WORKING_LIGHTS = ("normal", "warm", "cool", "bright", "side")
"""Lights that a station is set up with; `dim` and `dark` are what happens when lamps fail."""
FADING = "fading"
"""A lamp that ages: over a series of `FADING_PARTS` parts from the usual light to half of it, and warmer."""
FADING_PARTS = 1000
_FADED = Light("fading", 0.5, (0.86, 0.97, 1.06), uneven=0.3, glare=0.35, noise=1.8)
MIXED = "mixed"
"""The working lights as they come: half of the pictures under the usual lamp, the rest evenly under the others."""
_NORMAL_SHARE = 0.5


@dataclass(frozen=True)
class Part:
    """One phone back."""

    number: int
    seed: int
    label: str
    severity: float
    """0…1; 0 for a good part."""
    finish: Finish
    mark_mm: float | None = None
    """Length of a small mark that is drawn in place of a defect of the usual sizes; None for those."""


def working_light(chance: np.random.Generator) -> Light:
    """Return one of the working lights, drawn as `MIXED` says."""
    if chance.random() < _NORMAL_SHARE:
        return LIGHTS["normal"]
    return LIGHTS[WORKING_LIGHTS[1 + int(chance.integers(len(WORKING_LIGHTS) - 1))]]


def light_of(name: str, seed: int, number: int) -> Light:
    """Return the light of a part in a series: the one of that name, or for `mixed` one that the part's number fixes.

    For `fading` the number says how old the lamp is.
    """
    if name == FADING:
        return _faded(min(number / FADING_PARTS, 1.0))
    return working_light(np.random.default_rng([seed, number, 7])) if name == MIXED else LIGHTS[name]


def make_part(seed: int, number: int, defect_share: float) -> Part:
    """Return part `number` of the series `seed`; a share of about `defect_share` has one of the defects."""
    rng = np.random.default_rng([seed, number])
    finish = FINISHES[int(rng.integers(len(FINISHES)))]
    defective = rng.random() < defect_share
    label = DEFECTS[int(rng.integers(len(DEFECTS)))] if defective else "good"
    severity = round(float(rng.beta(2.2, 1.3)), 3) if defective else 0.0
    return Part(number, int(rng.integers(2**31)), label, severity, finish)


def of_new_batch(part: Part) -> Part:
    """Return the same part in a finish of the new batch."""
    return replace(part, finish=NEW_FINISHES[part.seed % len(NEW_FINISHES)])


def of_drawn_batch(part: Part) -> Part:
    """Return the same part in a finish that was drawn at random."""
    return replace(part, finish=DRAWN_FINISHES[part.seed % len(DRAWN_FINISHES)])


def with_small_mark(part: Part, longest_mm: float = 1.0) -> Part:
    """Return a defective part with a mark of 0.05 to `longest_mm` mm in place of its defect; good parts stay.

    Lengths are even over that range, so many lie around any convention within it.
    """
    if part.label == "good":
        return part
    length = float(np.random.default_rng([part.seed, 11]).uniform(0.05, longest_mm))
    return replace(part, label="scratch", mark_mm=round(length, 3))


def _faded(age: float) -> Light:
    """Return the aging lamp between new (0) and old (1)."""
    new = LIGHTS["normal"]

    def between(a: float, b: float) -> float:
        return a + (b - a) * age

    return Light(
        FADING,
        between(new.gain, _FADED.gain),
        (
            between(new.tint[0], _FADED.tint[0]),
            between(new.tint[1], _FADED.tint[1]),
            between(new.tint[2], _FADED.tint[2]),
        ),
        uneven=between(new.uneven, _FADED.uneven),
        glare=between(new.glare, _FADED.glare),
        noise=between(new.noise, _FADED.noise),
    )
