"""Opens a microphone through PortAudio (sounddevice): the only part of the microphone that needs hardware.

Rules:
- The callback runs in PortAudio's own thread and does nothing but hand the block over.
- Devices that were plugged in later are only seen after PortAudio was begun anew, so each opening does that. It ends
  other streams of this process: one microphone to a daemon.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError, SourceError
from edge.lazy import missing_library

I16 = NDArray[np.int16]
OnBlock = Callable[[I16, bool], None]
"""Takes a block (samples,) int16 and whether samples were lost before it. Never waits."""


class Stream(Protocol):
    """An open microphone."""

    @property
    def active(self) -> bool:
        """Whether it still gives blocks."""
        ...

    def close(self) -> None:
        """Give it back."""
        ...


def open_stream(device: int | str | None, rate_hz: int, block: int, on_block: OnBlock) -> Stream:
    """Begin to record.

    Args:
        device: number or part of the name; None for the system's default.
        rate_hz: sample rate.
        block: samples per block.
        on_block: called for every block.

    Raises:
        ConfigError: sounddevice or the system's PortAudio is not installed.
        SourceError: there is no such microphone, or it cannot record so.
    """
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise missing_library("source", "microphone", error, "microphone") from error
    except OSError as error:
        raise ConfigError(f"source microphone: {error}", hint="apt-get install libportaudio2") from error

    def callback(data: Any, _frames: int, _time: Any, status: Any) -> None:
        on_block(np.array(data[:, 0], np.int16), bool(status.input_overflow))

    try:
        sounddevice._terminate()
        sounddevice._initialize()
        stream = sounddevice.InputStream(
            device=device, samplerate=rate_hz, blocksize=block, channels=1, dtype="int16", callback=callback
        )
        stream.start()
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SourceError(
            f"microphone {device or ''}: {error}", hint="is it plugged in? arecord -l lists them"
        ) from error
    opened: Stream = stream
    return opened
