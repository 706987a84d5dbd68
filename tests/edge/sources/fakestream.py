"""A microphone without hardware: plays samples into PortAudio's callback, from a thread of its own."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import SourceError
from edge.sources.microphone import MicrophoneSource
from edge.sources.portaudio import OnBlock
from edge.sources.segments import open_segmenter
from edge.sources.settings import MicrophoneSettings

RATE_HZ = 8000


def silence(seconds: float) -> NDArray[np.int16]:
    """Return the noise of a quiet room."""
    return np.random.default_rng(1).integers(-20, 21, round(seconds * RATE_HZ)).astype(np.int16)


def tone(seconds: float, hertz: float = 440.0) -> NDArray[np.int16]:
    """Return something loud."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (8000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


class FakeStream:
    """Plays the samples once, as fast as they are taken or in real time, then stays silent or dies."""

    def __init__(self, samples: NDArray[np.int16], block: int, on_block: OnBlock, *, dies: bool = True) -> None:
        self._samples, self._block, self._on_block = samples, block, on_block
        self._dies = dies
        self._stop = threading.Event()
        self.played = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def active(self) -> bool:
        return not (self._dies and self.played.is_set()) and not self._stop.is_set()

    def close(self) -> None:
        self._stop.set()
        self.thread.join(5)

    def _run(self) -> None:
        for at in range(0, len(self._samples), self._block):
            if self._stop.is_set():
                return
            self._on_block(self._samples[at : at + self._block], False)
        self.played.set()


class FakeDevice:
    """Opens fake streams; `there` says whether one is plugged in."""

    def __init__(
        self, samples: NDArray[np.int16], *, dies: bool = True, lose_before: frozenset[int] = frozenset()
    ) -> None:
        self.samples, self.dies, self.lose_before = samples, dies, lose_before
        self.there = True
        self.streams: list[FakeStream] = []

    def __call__(self, device: Any, rate_hz: int, block: int, on_block: OnBlock) -> FakeStream:
        if not self.there:
            raise SourceError(f"microphone {device}: no such device")
        numbers = iter(range(10**9))

        def marked(samples: NDArray[np.int16], _lost: bool) -> None:
            on_block(samples, next(numbers) in self.lose_before)

        self.streams.append(FakeStream(self.samples, block, marked, dies=self.dies))
        return self.streams[-1]


def microphone(device: FakeDevice, clock: Any, **settings: Any) -> MicrophoneSource:
    """Return the real source over a fake device."""
    checked = MicrophoneSettings.model_validate({"rate_hz": RATE_HZ, **settings})
    return MicrophoneSource(checked, open_segmenter(checked.segments, RATE_HZ), clock, device)
