"""Cuts off or makes unreadable parts of every picture before anything else sees it: wraps any source of pictures.

Rules:
- Masks first, then the cut: both are said in shares of the picture as it came.
- What is masked is gone for the network, the record, the page and the control plane alike: the bytes as they came
  are dropped, and what is kept is encoded anew from the masked picture.
- A picture that cannot be decoded is not kept either: nobody can say what would have to be masked in it.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, floor
from typing import Any

import cv2
import numpy as np

from edge.imaging import encode_png
from edge.masks import Mask, Region
from edge.preprocess import U8
from edge.sources.interface import Source
from edge.values import Window

CELLS = 6
"""A blurred region keeps this many shades along each side: a colour, no face and no writing."""

_ROUNDING = 1e-6
"""Of a pixel: 0.3 of 100 columns is 30, whatever binary fractions make of it."""


class MaskedSource:
    """Gives another source's windows with the masks applied; has everything else from it."""

    def __init__(self, inner: Source, masks: Sequence[Mask], crop: Region | None = None) -> None:
        self._inner = inner
        self._masks, self._crop = masks, crop
        self.kind = inner.kind

    def read(self, wait_s: float) -> Window | None:
        """Return the next window, masked."""
        window = self._inner.read(wait_s)
        return None if window is None else masked(window, self._masks, self._crop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def masked(window: Window, masks: Sequence[Mask], crop: Region | None = None) -> Window:
    """Return the window with the masked picture, cut to `crop`, and without the bytes as they came."""
    if window.data is None or window.data.ndim != 3:
        return replace(window, raw=None, encode=None)
    picture = window.data.copy()
    for mask in masks:
        _apply(picture, mask)
    if crop is not None:
        # Inwards to whole pixels, and a copy: nothing of what is cut off may be left, not even in memory.
        rows, columns = _inner(crop, *picture.shape[:2])
        picture = picture[rows, columns].copy()
    return replace(window, data=picture, raw=None, media_type="image/png", encode=lambda: encode_png(picture))


def _inner(crop: Region, rows: int, columns: int) -> tuple[slice, slice]:
    """Return the pixels that lie wholly in a region; at least one."""
    top, left = ceil(crop.y * rows - _ROUNDING), ceil(crop.x * columns - _ROUNDING)
    bottom, right = floor((crop.y + crop.height) * rows + _ROUNDING), floor((crop.x + crop.width) * columns + _ROUNDING)
    top, left = min(top, rows - 1), min(left, columns - 1)
    return slice(top, max(top + 1, min(bottom, rows))), slice(left, max(left + 1, min(right, columns)))


def _apply(picture: U8, mask: Mask) -> None:
    rows, columns = picture.shape[:2]
    # Outwards to whole pixels: nothing of what is to be hidden may look out at an edge.
    top, left = int(mask.y * rows), int(mask.x * columns)
    bottom = min(rows, int(np.ceil((mask.y + mask.height) * rows)))
    right = min(columns, int(np.ceil((mask.x + mask.width) * columns)))
    region = picture[top:bottom, left:right]
    if mask.how == "black":
        region[...] = 0
        return
    small = cv2.resize(region, (min(CELLS, right - left), min(CELLS, bottom - top)), interpolation=cv2.INTER_AREA)
    region[...] = cv2.resize(small, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
