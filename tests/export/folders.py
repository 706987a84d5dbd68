"""Folders of small drawn pictures and sounds, as a person would hand them to `fit`."""

import wave
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray


def picture(seed: int, *, scratched: bool, side: int = 64) -> NDArray[np.uint8]:
    """Return a gray plate with grain, with a dark line across it if `scratched`."""
    chance = np.random.default_rng(seed)
    plate = chance.normal(150 + chance.uniform(-15, 15), 6, (side, side, 3)).clip(0, 255).astype(np.uint8)
    if scratched:
        left, right = (int(value) for value in chance.integers(8, side - 8, 2))
        cv2.line(plate, (left, 6), (right, side - 6), (40, 40, 40), 3)
    return plate


def plates(root: Path, count: int = 12, *, good: str = "good", per_part: int = 1, side: int = 64) -> Path:
    """Write `count` good and `count` scratched plates, `per_part` pictures to a part; return the folder."""
    for number, label in enumerate((good, "scratch")):
        (root / label).mkdir(parents=True)
        for at in range(count):
            drawn = picture(number * 1000 + at, scratched=label == "scratch", side=side)
            cv2.imwrite(str(root / label / f"p{at // per_part:03d}_{at:03d}.png"), drawn)
    return root


def tones(root: Path, count: int = 8) -> Path:
    """Write `count` high and `count` low tones of a second; return the folder."""
    chance = np.random.default_rng(1)
    for label, hz in (("high", 1800.0), ("low", 300.0)):
        (root / label).mkdir(parents=True)
        for at in range(count):
            seconds = np.arange(8000) / 8000
            samples = 0.4 * np.sin(2 * np.pi * hz * seconds * chance.uniform(0.9, 1.1)) + chance.normal(0, 0.01, 8000)
            with wave.open(str(root / label / f"{at}.wav"), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(8000)
                file.writeframes((samples * 32767).astype("<i2").tobytes())
    return root
