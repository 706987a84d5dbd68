"""Reads a video device in a thread of its own, and opens it again with back-off for as long as it is away.

Rules:
- Only the thread touches the device: the native libraries may block for seconds, and must not be released meanwhile.
- Nothing is queued here: each frame is handed over at once, so that the device's own buffers stay empty.
- The end of a file is an end; a camera that gives no more frames is lost, and opened again.
"""

import threading
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np

from edge.errors import SourceError
from edge.sources.frames import U8
from edge.sources.jpegs import DamagedFrameError
from edge.sources.reopening import WAIT_MAX_S, WAIT_MIN_S

JOIN_S = 2.0
"""Longest wait for the thread to give the device back; one that hangs in the driver is left to end by itself."""


class Device(Protocol):
    """The part of OpenCV's `VideoCapture` that is needed."""

    def read(self) -> Any:
        """Return (whether there is a frame, the frame (height, width, 3) uint8 in BGR order).

        Raises:
            DamagedFrameError: this one cannot be judged.
        """
        ...

    def release(self) -> None: ...


class Receiver(Protocol):
    """Who takes the frames; called from the capture's thread."""

    def frame(self, frame: U8) -> None: ...

    def damaged(self, why: str) -> None: ...

    def lost(self, why: str) -> None: ...

    def ended(self) -> None: ...


class Capture:
    """A device that is read for as long as this is open."""

    def __init__(
        self, open_device: Callable[[], Device], receiver: Receiver, *, ends: bool, pause_s: float | None = None
    ) -> None:
        """Begin to read.

        Args:
            open_device: opens the device; raises SourceError if it is not there.
            receiver: takes what comes.
            ends: whether the end of the frames is an end (a file) or a loss (a camera).
            pause_s: time between two frames of a file that is to be played at its own pace.
        """
        self._open_device, self._receiver, self._ends, self._pause_s = open_device, receiver, ends, pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and give the device back. Safe to call twice."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_S)

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            frames, why = self._read_all()
            if self._stop.is_set():
                return
            if self._ends and frames:
                self._receiver.ended()
                return
            self._receiver.lost(why)
            failures = 0 if frames else failures + 1
            self._stop.wait(min(WAIT_MAX_S, WAIT_MIN_S * 2.0**failures))

    def _read_all(self) -> tuple[int, str]:
        """Open the device and read until it gives nothing more; return the number of frames and why it ended."""
        count = 0
        try:
            device = self._open_device()
        except (SourceError, cv2.error) as error:
            return 0, str(error)
        try:
            while not self._stop.is_set():
                try:
                    came, frame = device.read()
                except DamagedFrameError as error:
                    self._receiver.damaged(str(error))
                    continue
                if not came or frame is None:
                    break
                count += 1
                self._receiver.frame(_three_channels(np.asarray(frame, np.uint8)))
                if self._pause_s is not None:
                    self._stop.wait(self._pause_s)
        except cv2.error as error:
            return count, f"the driver failed: {error.err or error}"
        finally:
            device.release()
        return count, "it gives no more frames"


def _three_channels(frame: U8) -> U8:
    if frame.ndim == 3 and frame.shape[2] == 3:
        return frame
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), np.uint8)
