"""Raw inputs that are read when they are asked for, so that large pictures need no memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge.wire.manifest import AudioInput, ImageInput
from export import dataset
from export.dataset import Item


class RawInputs(Sequence[Any]):
    """Pictures (BGR), or sounds with their rate, of some items."""

    def __init__(self, items: list[Item], spec: ImageInput | AudioInput) -> None:
        self._items, self._spec = items, spec

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        window = dataset.read(self._items[place])
        if isinstance(self._spec, ImageInput):
            return window.data
        return np.asarray(window.data, np.float32), window.sample_rate_hz or self._spec.sample_rate_hz
