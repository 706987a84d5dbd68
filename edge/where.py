"""Where the network looked: the places of its heat map that speak most for a defect, on the picture as it came. Pure.

Rules:
- At most three places, the strongest first, each at least half as far above the map's middle as the strongest.
- Places are those of the input picture, 0…1 from its left and its top: a bundle's own size and borders are undone.
"""

import numpy as np
from numpy.typing import NDArray

from edge.wire.manifest import ImageInput
from edge.wire.rows import Peak

MOST = 3
_LEAST_SHARE = 0.5
_NEIGHBOURHOOD = 12
"""A place stands for a twelfth of the map each way, and at least for its neighbouring cells."""


def peaks(heatmap: NDArray[np.float32], spec: ImageInput, width: int, height: int) -> list[Peak]:
    """Return the strongest places.

    Args:
        heatmap: (rows, columns) float32, more is more suspicious.
        spec: how the picture became the network's input.
        width: of the picture as it came, in pixels.
        height: of the picture as it came, in pixels.
    """
    rows, columns = heatmap.shape
    left = np.array(heatmap, np.float32)
    reach_y, reach_x = (max(1, size // _NEIGHBOURHOOD) for size in (rows, columns))
    middle, top = float(np.median(left)), float(left.max())
    least = middle + _LEAST_SHARE * (top - middle)
    across, down = _shares(spec, width, height)
    found: list[Peak] = []
    while len(found) < MOST:
        row, column = divmod(int(left.argmax()), columns)
        value = float(left[row, column])
        if not (value >= least and value > middle):
            break
        left[max(0, row - reach_y) : row + reach_y + 1, max(0, column - reach_x) : column + reach_x + 1] = -np.inf
        x, y = ((column + 0.5) / columns - 0.5) / across + 0.5, ((row + 0.5) / rows - 0.5) / down + 0.5
        if _inside(x, 1 / (columns * across)) and _inside(y, 1 / (rows * down)):
            found.append(Peak(x=_within(x), y=_within(y), value=round(value, 4)))
    return found


def _shares(spec: ImageInput, width: int, height: int) -> tuple[float, float]:
    """Return the shares of the network's input, across and down, that the picture takes; the rest is border."""
    if spec.resize == "stretch":
        return 1.0, 1.0
    scale = min(spec.width / width, spec.height / height)
    return max(1, round(width * scale)) / spec.width, max(1, round(height * scale)) / spec.height


def _inside(place: float, cell: float) -> bool:
    """Return whether a cell around this place shows any of the picture."""
    return -cell / 2 < place < 1 + cell / 2


def _within(place: float) -> float:
    return round(min(max(place, 0.0), 1.0), 4)
