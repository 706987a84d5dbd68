"""Cuts running sound into segments, each of which is decided on; behind one interface, so that other ways can be added.

Rules:
- A segment begins some time before what set it off (pre-roll) and ends some time after it (hang-over): the first and
  the last consonants are soft.
- What is shorter than the minimum was a click; what is longer than the maximum is cut, and goes on as the next one.
- Time is counted in samples, never by a clock: the same sound gives the same segments.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.lazy import find
from edge.settings import read_settings
from edge.voice.settings import EnergySettings, SegmentSettings

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Segment:
    """One piece of sound to decide on."""

    samples: F32
    """(n,) float32 in −1…1."""
    start: int
    """Number of its first sample, counted from the beginning of the sound."""
    quiet: int = 0
    """Samples at its end, behind the last active frame: the hang-over."""
    active: int = 0
    """Samples of its active frames."""

    @property
    def speech_share(self) -> float:
        """Share of it in which there was something; pre-roll and hang-over count as quiet."""
        return self.active / len(self.samples)


class Segmenter(Protocol):
    """Says where segments begin and end."""

    def add(self, samples: F32) -> list[Segment]:
        """Take the next samples, any number of them, and return the segments that ended within them."""
        ...

    def flush(self) -> Segment | None:
        """Return the segment that had begun, as if the sound ended here, and begin anew."""
        ...

    @property
    def speaking(self) -> bool:
        """Whether there was something in the newest frame; also from another thread."""
        ...

    @property
    def active_samples(self) -> int:
        """Samples of all frames so far in which there was something, whether they came into a segment or not."""
        ...


SEGMENTERS = {
    "energy": "edge.sources.segments:open_energy",
    "webrtc": "edge.voice.webrtc:open_webrtc",
    "silero": "edge.voice.silero:open_silero",
    "cascade": "edge.voice.silero:open_cascade",
}
EXTRAS = {"webrtc": "voice", "cascade": "voice", "silero": "voice"}


def open_segmenter(settings: Mapping[str, Any], rate_hz: int) -> Segmenter:
    """Make a segmenter.

    Args:
        settings: `kind`, a key of `SEGMENTERS` (`energy` without one), and its own settings.
        rate_hz: sample rate of the sound.

    Raises:
        ConfigError: the kind or a setting is unknown or wrong, or a library is not installed.
    """
    own = dict(settings)
    opener = find(SEGMENTERS, str(own.pop("kind", "energy")), what="segmenter", extras=EXTRAS)
    segmenter: Segmenter = opener(own, rate_hz)
    return segmenter


class FrameSegmenter(ABC):
    """Makes segments of frames that are active or not; `active` is all that a way of finding speech has to bring."""

    def __init__(self, settings: SegmentSettings, rate_hz: int, frame: int) -> None:
        """Take the rules.

        Args:
            settings: pre-roll, hang-over and bounds.
            rate_hz: sample rate.
            frame: samples per frame.
        """
        frame_ms = frame * 1000 / rate_hz
        self._frame = frame
        self._pre_roll = round(settings.pre_roll_ms / frame_ms)
        self._hang_over = max(1, round(settings.hang_over_ms / frame_ms))
        self._min = settings.min_ms / frame_ms
        self._max = max(1, int(settings.max_ms / frame_ms))
        self._rest: F32 = np.zeros(0, np.float32)
        self._before: deque[F32] = deque(maxlen=self._pre_roll)
        self._number = 0
        self.speaking = False
        self.active_samples = 0
        self._begin()

    @abstractmethod
    def active(self, frame: F32) -> bool:
        """Return whether there is something in a frame (samples,)."""

    def add(self, samples: F32) -> list[Segment]:
        sound = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(sound) // self._frame * self._frame
        self._rest = sound[whole:].copy()
        found = (self._take(sound[at : at + self._frame]) for at in range(0, whole, self._frame))
        return [segment for segment in found if segment is not None]

    def flush(self) -> Segment | None:
        segment = self._end() if self._frames else None
        self.speaking = False
        self._before.clear()
        self._rest = self._rest[:0]
        return segment

    def _begin(self) -> None:
        self._frames: list[F32] = []
        self._first = self._speech_from = self._speech_to = self._active = 0

    def _take(self, frame: F32) -> Segment | None:
        active = self.speaking = self.active(frame)
        number, self._number = self._number, self._number + 1
        self.active_samples += self._frame if active else 0
        if not self._frames:
            if not active:
                self._before.append(frame.copy())
                return None
            self._frames = list(self._before)
            self._before.clear()
            self._first, self._speech_from = number - len(self._frames), number
        self._frames.append(frame.copy())
        if active:
            self._speech_to, self._active = number + 1, self._active + 1
        if number + 1 - self._speech_to >= self._hang_over or len(self._frames) >= self._max:
            return self._end()
        return None

    def _end(self) -> Segment | None:
        frames, first, active = self._frames, self._first, self._active
        long_enough = self._speech_to - self._speech_from >= self._min
        # The quiet end may be the pre-roll of what comes next.
        quiet = frames[self._speech_to - first :]
        self._before.extend(quiet)
        self._begin()
        if not long_enough:
            return None
        return Segment(np.concatenate(frames), first * self._frame, len(quiet) * self._frame, active * self._frame)


class EnergySegmenter(FrameSegmenter):
    """A frame is active if it is loud."""

    def __init__(self, settings: EnergySettings, rate_hz: int) -> None:
        super().__init__(settings, rate_hz, max(1, round(settings.frame_ms * rate_hz / 1000)))
        self._threshold = 10 ** (settings.threshold_dbfs / 10)

    def active(self, frame: F32) -> bool:
        return float(np.mean(np.square(frame, dtype=np.float64))) > self._threshold


def open_energy(settings: Mapping[str, Any], rate_hz: int) -> EnergySegmenter:
    """Make an `EnergySegmenter`.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    return EnergySegmenter(read_settings(EnergySettings, settings, where="segmenter energy"), rate_hz)
