"""What a phone back is: its finish, its defect, and where they are; and the lights it may be seen under. Pure.

Rules:
- A part is fixed by (seed, number): the same part under another light has the same defect in the same place.
- Severity runs from 0 (hardly there) to 1 (nobody could miss it); low ones are rare but real, so that a model has
  something to be unsure of.
"""

from dataclasses import dataclass

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


def working_light(chance: np.random.Generator) -> Light:
    """Return one of the working lights, drawn as `MIXED` says."""
    if chance.random() < _NORMAL_SHARE:
        return LIGHTS["normal"]
    return LIGHTS[WORKING_LIGHTS[1 + int(chance.integers(len(WORKING_LIGHTS) - 1))]]


def light_of(name: str, seed: int, number: int) -> Light:
    """Return the light of a part in a series: the one of that name, or for `mixed` one that the part's number fixes."""
    return working_light(np.random.default_rng([seed, number, 7])) if name == MIXED else LIGHTS[name]


def make_part(seed: int, number: int, defect_share: float) -> Part:
    """Return part `number` of the series `seed`; a share of about `defect_share` has one of the defects."""
    rng = np.random.default_rng([seed, number])
    finish = FINISHES[int(rng.integers(len(FINISHES)))]
    defective = rng.random() < defect_share
    label = DEFECTS[int(rng.integers(len(DEFECTS)))] if defective else "good"
    severity = round(float(rng.beta(2.2, 1.3)), 3) if defective else 0.0
    return Part(number, int(rng.integers(2**31)), label, severity, finish)
