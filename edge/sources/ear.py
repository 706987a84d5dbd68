"""Listens for a source: hands sound to its segmenter, and remembers how loud it is and whether anybody speaks.

Rules:
- What is remembered is two values of the newest block: whoever shows them may miss one, and costs the listener nothing.
- What was heard is counted whether anybody spoke or not (`heard.py`).
"""

import numpy as np

from edge.sources.heard import SILENCE_DBFS, Seconds, dbfs
from edge.sources.interface import Listening
from edge.sources.segments import F32, Segment, Segmenter


class Ear:
    """A segmenter, watched. Used by one thread; `now` also by others."""

    def __init__(self, segmenter: Segmenter, seconds: Seconds) -> None:
        self._segmenter, self._seconds = segmenter, seconds
        self.now: Listening | None = None

    def hear(self, block: F32) -> list[Segment]:
        """Take the next samples (n,) float32 in −1…1 and return the segments that ended within them."""
        before = self._segmenter.active_samples
        segments = self._segmenter.add(block)
        self._seconds.add(block, self._segmenter.active_samples - before)
        self.now = Listening(level_dbfs(block), self._segmenter.speaking)
        return segments

    def flush(self) -> Segment | None:
        """Return the segment that had begun, as if the sound ended here."""
        self.now = None
        return self._segmenter.flush()


def level_dbfs(block: F32) -> float:
    """Return the level of a block in dB of full scale."""
    return dbfs(float(np.dot(block, block)) / len(block)) if len(block) else SILENCE_DBFS
