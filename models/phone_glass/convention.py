"""The labelling convention: how long a defect is in millimetres, and from which length on it counts. Pure.

Rules:
- Length is measured on the truth that was drawn: the longer side of the smallest box around what shows.
- Up to the convention's length a mark is no defect; around it, within what people tell apart, it is borderline: a
  class of its own, which neither passes nor fails by itself and which no figure counts as wrong.
- The glass is 147 mm long and 516 pixels in the picture, so a pixel is 0.28 mm: the convention lies at one pixel.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

GLASS_MM, GLASS_PIXELS = 147.0, 516
MM_PER_PIXEL = GLASS_MM / GLASS_PIXELS
BORDERLINE = "borderline"
_SHOWS = 64
"""A pixel belongs to the defect where the mask has a quarter of its strength."""


@dataclass(frozen=True)
class Convention:
    """`a defect if longer than longer_than_mm`; lengths within `unsure_mm` of it are borderline."""

    longer_than_mm: float = 0.3
    unsure_mm: float = 0.1

    def label(self, drawn: str, length_mm: float) -> str:
        """Return what instructions make of a mark: `good`, `borderline`, or its own name.

        Args:
            drawn: what was drawn; a good part stays good.
            length_mm: as measured.
        """
        if drawn == "good" or length_mm < self.longer_than_mm - self.unsure_mm:
            return "good"
        return BORDERLINE if length_mm <= self.longer_than_mm + self.unsure_mm else drawn

    def in_words(self) -> str:
        """Return the instruction as a person labels by."""
        low, high = self.longer_than_mm - self.unsure_mm, self.longer_than_mm + self.unsure_mm
        return (
            f"A mark is a defect if it is longer than {self.longer_than_mm:g} mm. "
            f"From {low:g} to {high:g} mm it is borderline: say so instead of guessing."
        )


CONVENTION = Convention()
"""What the project's own sets are labelled by."""


def length_mm(mask: NDArray[np.uint8]) -> float:
    """Return how long a defect is.

    Args:
        mask: (480, 640) where it shows, 255 at its strongest, as `Studio.photograph_with_truth` gives it.
    """
    points = np.argwhere(mask > _SHOWS).astype(np.float32)
    if not len(points):
        return 0.0
    _, (width, height), _ = cv2.minAreaRect(points)
    return round((max(width, height) + 1) * MM_PER_PIXEL, 2)
