"""A microphone: listens all the time, and gives each segment in which there is something as one window.

Rules:
- The blocks of the device wait in memory (`MAX_WAITING_S`) while the pipeline decides; what is lost beyond is told,
  and the segment that it was lost from is deferred, never judged as if it were whole.
- A microphone that gives no blocks is lost: what was being said is deferred, and it is opened again with back-off.
- Exact silence is no room but a cable or a switch: it is told as a problem.
- A segment has no file: a WAV is made of it only if its decision is kept (`Window.encode`), so a replay hears the same.
"""

import threading
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge.clock import new_boot_id
from edge.errors import SourceError
from edge.settings import read_settings
from edge.sound import MEDIA_TYPE, encode_wav
from edge.sources.ear import Ear
from edge.sources.heard import Heard, Seconds
from edge.sources.interface import Listening, News
from edge.sources.portaudio import I16, OnBlock, Stream, open_stream
from edge.sources.segments import Segment, Segmenter, open_segmenter
from edge.sources.settings import MicrophoneSettings
from edge.values import Window

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen

MAX_WAITING_S = 30.0
LOST_AFTER_S = 2.0
"""A device that gave no block for so long is gone: PortAudio does not always say so."""
_POLL_S = 0.1


class OpenStream(Protocol):
    """Opens a microphone, as `edge.sources.portaudio.open_stream` does."""

    def __call__(self, device: int | str | None, rate_hz: int, block: int, on_block: OnBlock) -> Stream: ...


class MicrophoneSource:
    """Gives one window per segment. `read` is used by one thread."""

    kind = "microphone"

    def __init__(
        self, settings: MicrophoneSettings, segmenter: Segmenter, clock: "Clock", open_device: OpenStream
    ) -> None:
        """Begin to listen.

        Raises:
            ConfigError: the system's library is not installed.
            SourceError: there is no such microphone.
        """
        self._settings, self._clock, self._seconds = settings, clock, Seconds(settings.rate_hz)
        self._ear = Ear(segmenter, self._seconds)
        self._opening, self._number = new_boot_id()[:12], 0
        self._changed = threading.Condition()
        self._blocks: deque[tuple[I16, bool, float]] = deque()
        self._max_blocks = max(1, round(MAX_WAITING_S * 1000 / settings.block_ms))
        self._overflows = self._told_overflows = 0
        self._gap_at: int | None = None
        self._heard = 0
        self._silent = 0
        self._ready: deque[Window] = deque()
        self._closed = self._gone = False
        self._last_block_s = clock.monotonic_s()
        block = round(settings.rate_hz * settings.block_ms / 1000)
        self._stream = open_device(settings.device, settings.rate_hz, block, self._take)

    def read(self, wait_s: float) -> Window | None:
        until_s = self._clock.monotonic_s() + wait_s
        while True:
            if self._closed:
                raise SourceError("the source is closed", retry=False)
            self._listen()
            if self._ready:
                return self._ready.popleft()
            if self._gone:
                raise SourceError("unplugged: the microphone gives no more sound", hint="is it plugged in?")
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0:
                return None
            with self._changed:
                if not self._blocks:
                    self._changed.wait(min(left_s, _POLL_S))

    @property
    def exhausted(self) -> bool:
        return self._closed

    @property
    def problem(self) -> str | None:
        """That the sound is exactly silent, or None."""
        silent_s = self._silent / self._settings.rate_hz
        if 0 < self._settings.dead_after_s <= silent_s:
            return f"dead: exactly silent for {silent_s:.0f} s, is it muted?"
        return None

    @property
    def listening(self) -> Listening | None:
        return self._ear.now

    def heard(self) -> list[Heard]:
        return self._seconds.take()

    def news(self) -> list[News]:
        count = self._overflows - self._told_overflows
        self._told_overflows = self._overflows
        if not count:
            return []
        return [News("sound_lost", f"sound was lost {count} times: deciding is too slow", "warning", {"count": count})]

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._stream.close()

    def _take(self, block: I16, lost: bool) -> None:  # noqa: FBT001 - PortAudio's thread hands it over so
        now_s = self._clock.monotonic_s()
        with self._changed:
            self._overflows += lost
            self._blocks.append((block, lost, now_s))
            if len(self._blocks) > self._max_blocks:
                self._blocks.popleft()
                oldest, _, at_s = self._blocks.popleft()
                self._blocks.appendleft((oldest, True, at_s))
                self._overflows += 1
            self._last_block_s = now_s
            self._changed.notify_all()

    def _listen(self) -> None:
        """Let the segmenter hear what came, and notice when nothing comes."""
        while not self._ready:
            with self._changed:
                if not self._blocks:
                    break
                block, lost, at_s = self._blocks.popleft()
            self._hear(block, lost=lost, at_s=at_s)
        silent_s = self._clock.monotonic_s() - self._last_block_s
        if not self._ready and not self._gone and (silent_s > LOST_AFTER_S or not self._stream.active):
            self._gone = True
            rest = self._ear.flush()
            if rest is not None:
                self._give(rest, "unplugged: the microphone was lost within it", self._last_block_s)

    def _hear(self, block: I16, *, lost: bool, at_s: float) -> None:
        if lost:
            self._gap_at = self._heard
        self._silent = 0 if block.any() else self._silent + len(block)
        for segment in self._ear.hear(np.divide(block, 32768, dtype=np.float32)):
            whole = self._gap_at is None or not segment.start < self._gap_at < segment.start + len(segment.samples)
            self._give(segment, None if whole else "incomplete: sound was lost within it", at_s)
        self._heard += len(block)

    def _give(self, segment: Segment, problem: str | None, at_s: float) -> None:
        self._number += 1
        rate_hz = self._settings.rate_hz
        self._ready.append(
            Window(
                source=self.kind,
                name=f"segment {self._number} at {segment.start / rate_hz:.2f} s",
                key=f"{self._opening}-{self._number}",
                media_type=MEDIA_TYPE,
                data=segment.samples if problem is None else None,
                sample_rate_hz=rate_hz,
                problem=problem,
                live=True,
                waited_ms=max(0.0, self._clock.monotonic_s() - at_s) * 1000,
                hang_over_ms=segment.quiet * 1000 / rate_hz,
                speech_share=segment.speech_share,
                encode=partial(encode_wav, segment.samples, rate_hz),
            )
        )


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> MicrophoneSource:  # noqa: ARG001
    """Open the source; its settings are `MicrophoneSettings`.

    Raises:
        ConfigError: a setting is unknown or wrong, or a library is not installed.
        SourceError: there is no such microphone.
    """
    checked = read_settings(MicrophoneSettings, settings, where="source microphone")
    return MicrophoneSource(checked, open_segmenter(checked.segments, checked.rate_hz), clock, open_stream)
