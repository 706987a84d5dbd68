"""What running sound is like, second by second, whether anybody speaks or not: counts of samples, no clock.

Rules:
- Time is counted in samples, like that of segments: the same sound gives the same seconds.
- Everything of a second adds up with that of others, so that a share of speech is one of the whole listening time, not
  of the segments that were found in it.
- At most `MAX_WAITING` seconds wait to be taken; whoever does not take them loses the oldest.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLIPPED = 0.999
"""Samples from here on count as clipped, as in the gate."""
SILENCE_DBFS = -120.0
"""Shown for exact silence, which has no logarithm."""
MAX_WAITING = 600


@dataclass(frozen=True, slots=True)
class Heard:
    """What was heard in some time."""

    seconds: float
    speech_s: float
    clipped: float
    """Share of the samples, 0…1."""
    power: float
    """Mean square of the samples, of full scale."""

    @property
    def speech_share(self) -> float:
        return self.speech_s / self.seconds

    @property
    def level_dbfs(self) -> float:
        return dbfs(self.power)


class Seconds:
    """Cuts what is heard into seconds. Used by one thread."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._waiting: deque[Heard] = deque(maxlen=MAX_WAITING)
        self._begin()

    def add(self, block: NDArray[np.float32], active: int) -> None:
        """Take a block of samples (n,) float32 in −1…1, of which `active` are speech."""
        self._samples += len(block)
        self._active += active
        self._clipped += int(np.count_nonzero(np.abs(block) >= CLIPPED))
        self._energy += float(np.dot(block, block))
        if self._samples >= self._rate_hz:
            self._waiting.append(
                Heard(
                    self._samples / self._rate_hz,
                    min(self._active, self._samples) / self._rate_hz,
                    self._clipped / self._samples,
                    self._energy / self._samples,
                )
            )
            self._begin()

    def take(self) -> list[Heard]:
        """Return the seconds that are over since the last call."""
        if not self._waiting:
            return []
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def _begin(self) -> None:
        self._samples = self._active = self._clipped = 0
        self._energy = 0.0


def together(parts: Iterable[Heard]) -> Heard | None:
    """Return several times as one, None for none."""
    found = list(parts)
    seconds = sum(part.seconds for part in found)
    if not seconds:
        return None
    return Heard(
        seconds,
        sum(part.speech_s for part in found),
        sum(part.clipped * part.seconds for part in found) / seconds,
        sum(part.power * part.seconds for part in found) / seconds,
    )


def dbfs(power: float) -> float:
    """Return a mean square in dB of full scale."""
    return max(SILENCE_DBFS, 10 * math.log10(power)) if power > 0 else SILENCE_DBFS
