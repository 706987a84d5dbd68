"""Sounds in WAV files: one window per file, or one per segment of speech in it, also at the pace of speech.

Rules:
- Without `segments` a file is a window. With them each file is heard as a microphone would hear it, by a segmenter of
  its own, so that the same file gives the same segments, and a segment that was decided is not decided again.
- In real time a block is taken when it has been spoken, so what a segment waited is what it would wait at a microphone.
- A segment has no file: a WAV is made of it only if its decision is kept or asked about, so its samples are of 16 bits.
- A file that cannot be decoded is a window with its reason; one in which nobody speaks is told.
"""

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.preprocess import resample
from edge.settings import read_settings
from edge.sound import MEDIA_TYPE, encode_wav
from edge.sources.ear import Ear
from edge.sources.files import FileSource
from edge.sources.heard import Heard, Seconds
from edge.sources.interface import Listening, News
from edge.sources.pace import Pace
from edge.sources.segments import F32, Segment, Segmenter, open_segmenter
from edge.sources.settings import AudioFileSettings
from edge.values import Window

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen

BLOCK_S = 0.02
"""What is heard at once: as much as a microphone gives."""


class HeardFiles:
    """Gives one window per segment of speech in files. Used by one thread."""

    def __init__(
        self,
        files: FileSource,
        settings: AudioFileSettings,
        open_ears: Callable[[], Segmenter],
        seen: "Seen",
        clock: "Clock",
    ) -> None:
        """Begin.

        Args:
            files: gives whole files as windows.
            settings: rate and pace.
            open_ears: makes a segmenter for one file.
            seen: says whether a segment was decided.
            clock: for the pace.
        """
        self.kind = files.kind
        self._files, self._settings, self._open_ears = files, settings, open_ears
        self._seen, self._clock = seen, clock
        self._block = round(settings.rate_hz * BLOCK_S)
        self._ready: deque[Window] = deque()
        self._file: Window | None = None
        self._sound: F32 = np.zeros(0, np.float32)
        self._heard = self._found = 0
        self._ear: Ear | None = None
        self._seconds = Seconds(settings.rate_hz)
        self._pace = Pace(None, clock)
        self._news: list[News] = []

    def read(self, wait_s: float) -> Window | None:
        until_s = self._clock.monotonic_s() + wait_s
        while not self._ready:
            left_s = max(0.0, until_s - self._clock.monotonic_s())
            if self._ear is None:
                window = self._files.read(left_s)
                if window is None or window.data is None:
                    return window
                self._begin(window, window.data)
            elif not self._listen(self._ear, until_s):
                return None
        return self._ready.popleft()

    @property
    def exhausted(self) -> bool:
        return self._files.exhausted and not self._ready and self._ear is None

    @property
    def listening(self) -> Listening | None:
        ear = self._ear
        return ear.now if ear is not None else None

    def heard(self) -> list[Heard]:
        return self._seconds.take()

    @property
    def problem(self) -> str | None:
        return None

    def news(self) -> list[News]:
        told, self._news = self._news, []
        return told

    def close(self) -> None:
        self._files.close()
        self._ready.clear()
        self._ear = None

    def _begin(self, window: Window, data: F32) -> None:
        """Begin to hear a file."""
        rate_hz = self._settings.rate_hz
        sound = resample(data, window.sample_rate_hz or rate_hz, rate_hz)
        # Rounded to 16 bits, so that a file made of a segment holds the very values that were judged.
        self._file = window
        self._sound = (np.clip(np.rint(sound * 32768), -32768, 32767) / 32768).astype(np.float32)
        self._heard = self._found = 0
        self._ear = Ear(self._open_ears(), self._seconds)
        self._pace = Pace(1 / BLOCK_S if self._settings.real_time else None, self._clock)
        self._pace.took()  # the first block has to be spoken first

    def _listen(self, ear: Ear, until_s: float) -> bool:
        """Hear the next block, if it has been spoken in time; return whether it was."""
        if not self._pace.wait(until_s):
            return False
        block = self._sound[self._heard : self._heard + self._block]
        self._heard += len(block)
        for segment in ear.hear(block):
            self._give(segment)
        if self._heard >= len(self._sound):
            self._end(ear)
        self._pace.took()
        # As fast as can be is not without end: whoever wants to stop is asked between two blocks.
        return bool(self._ready) or self._clock.monotonic_s() < until_s

    def _end(self, ear: Ear) -> None:
        rest = ear.flush()
        if rest is not None:
            self._give(rest)
        if not self._found and self._file is not None:
            length_s = len(self._sound) / self._settings.rate_hz
            detail = f"{self._file.name}: nobody speaks in its {length_s:.1f} s"
            self._news.append(News("nothing_heard", detail, data={"name": self._file.name}))
        self._file = self._ear = None

    def _give(self, segment: Segment) -> None:
        assert self._file is not None
        self._found += 1
        rate_hz, key = self._settings.rate_hz, f"{self._file.key}#{segment.start}"
        if not self._settings.loop and self._seen(key):
            return
        self._ready.append(
            Window(
                source=self.kind,
                name=f"{self._file.name} at {segment.start / rate_hz:.2f} s",
                key=key,
                media_type=MEDIA_TYPE,
                data=segment.samples,
                sample_rate_hz=rate_hz,
                waited_ms=self._pace.late_s * 1000,
                hang_over_ms=segment.quiet * 1000 / rate_hz,
                speech_share=segment.speech_share,
                encode=partial(encode_wav, segment.samples, rate_hz),
            )
        )


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> FileSource | HeardFiles:
    """Open the source; its settings are `AudioFileSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong, or a library is not installed.
        SourceError: there is nothing at the path.
    """
    checked = read_settings(AudioFileSettings, settings, where="source audio_file")
    if checked.segments is None:
        return FileSource("audio_file", "audio", checked, seen, clock)
    own, rate_hz = checked.segments, checked.rate_hz
    open_segmenter(own, rate_hz)  # now, so that a mistake in its settings is one of the configuration
    files = FileSource("audio_file", "audio", checked, lambda _key: False, clock)
    return HeardFiles(files, checked, lambda: open_segmenter(own, rate_hz), seen, clock)
