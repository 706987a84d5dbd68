"""Says what is wrong with a camera's frame: wrong size, black, or frozen; a rule over one frame and those before it.

Rules:
- Measured on every n-th pixel, so that a check costs microseconds however large the frame is.
- A sensor is never without noise: a picture that stays the same to the last bit has not been taken anew. (Cameras
  that compress a still scene may repeat one honestly: raise `frozen_after_s` there, or switch the check off.)
- Without a size in the settings, the first frame gives it: a camera that comes back in another size is told.
"""

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_GRID = 64
"""About so many pixels are looked at along each side."""


class FrameCheck:
    """Watches the frames of one camera. Used by one thread."""

    def __init__(self, size: tuple[int, int] | None, black_below: float, frozen_after_s: float) -> None:
        """Take the limits.

        Args:
            size: (width, height) in pixels, or None for that of the first frame.
            black_below: mean brightness, 0…1, below which a frame is black; 0 for no check.
            frozen_after_s: how long a picture may stay the same to the last bit; 0 for no check.
        """
        self._size, self._black_below, self._frozen_after_s = size, black_below, frozen_after_s
        self._last: U8 | None = None
        self._same_since_s = 0.0

    @property
    def watches_frozen(self) -> bool:
        """Whether pictures that stay the same are a problem."""
        return self._frozen_after_s > 0

    def problem(self, frame: U8, now_s: float) -> str | None:
        """Return what is wrong with a frame, or None.

        Args:
            frame: (height, width, 3) uint8.
            now_s: monotonic time at which it came.
        """
        rows, columns = frame.shape[:2]
        if self._size is None:
            self._size = columns, rows
        small = thumbnail(frame)
        same_s = self._same_for_s(small, now_s)
        if (columns, rows) != self._size:
            return f"wrong size: expected {self._size[0]}×{self._size[1]} pixels, got {columns}×{rows}"
        brightness = float(small.mean()) / 255
        if brightness < self._black_below:
            return f"black: brightness {brightness:.3f} is below {self._black_below:.3f}"
        if 0 < self._frozen_after_s <= same_s:
            return f"frozen: the same picture to the last bit for {same_s:.1f} s"
        return None

    def _same_for_s(self, small: U8, now_s: float) -> float:
        if self._last is None or not np.array_equal(small, self._last):
            self._last, self._same_since_s = small, now_s
        return now_s - self._same_since_s


def thumbnail(frame: U8) -> U8:
    """Return every n-th pixel of every n-th row, a copy of at most some 50 kB."""
    rows, columns = frame.shape[:2]
    return frame[:: max(1, rows // _GRID), :: max(1, columns // _GRID)].copy()
