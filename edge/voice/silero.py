"""Finds speech with a small recurrent network (Silero VAD 6.2, MIT), alone or behind WebRTC's detector.

Rules:
- 512 samples at 16 kHz at a time (32 ms), each with the last 64 before it; the state goes from frame to frame.
- Speech begins at one probability and ends at a lower one, so that a doubtful frame does not cut a word in two.
- In cascade the network rests while the cheap detector has heard nothing for a while. Woken, it begins from the state
  that silence leaves: from nothing it needs longer to be sure than a short word lasts, and from what it heard last it
  hears less of voices that are far away.
"""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import onnxruntime as ort

from edge.errors import ConfigError
from edge.settings import read_settings
from edge.sources.segments import F32, FrameSegmenter
from edge.voice.settings import CascadeSettings, SileroSettings
from edge.voice.webrtc import FRAME_MS, WebrtcDetector

RATE_HZ = 16_000
FRAME, CONTEXT, STATE = 512, 64, (2, 1, 128)
MODEL = "silero_vad_v6.2.onnx"
SETTLE_FRAMES = 32
"""A second of silence: of 200 spoken digits the cascade heard 174 from nothing, and all of them from the state after
it; three seconds change nothing."""


class SileroDetector:
    """Gives the probability of speech, frame after frame."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = (resources.files("edge.voice") / MODEL).read_bytes()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._input = np.zeros((1, CONTEXT + FRAME), np.float32)
        self._rate = np.array(RATE_HZ, np.int64)
        self.forget()

    @property
    def state(self) -> F32:
        """What it remembers of the frames so far, shape (2, 1, 128)."""
        return self._state

    def forget(self, state: F32 | None = None) -> None:
        """Begin anew, from a state that it was in, or from none."""
        self._state = np.zeros(STATE, np.float32) if state is None else state
        self._input[:] = 0

    def probability(self, frame: F32) -> float:
        """Return the probability that a frame (512,) float32 in −1…1 at 16 kHz is speech."""
        self._input[0, :CONTEXT] = self._input[0, -CONTEXT:]
        self._input[0, CONTEXT:] = frame
        feed = {"input": self._input, "state": self._state, "sr": self._rate}
        chance, self._state = self._session.run(["output", "stateN"], feed)
        return float(chance.reshape(-1)[0])


class SileroSegmenter(FrameSegmenter):
    """Segments of what the network takes for speech."""

    def __init__(self, settings: SileroSettings, rate_hz: int) -> None:
        """Begin.

        Raises:
            ConfigError: the sound is not at 16 kHz.
        """
        if rate_hz != RATE_HZ:
            raise ConfigError(f"silero: expected sound at {RATE_HZ} Hz, got {rate_hz}", hint=f"set rate_hz = {RATE_HZ}")
        super().__init__(settings, rate_hz, FRAME)
        self._begin_at, self._end_at = settings.begin, settings.end
        self._speaking = False
        self._detector = SileroDetector()

    def active(self, frame: F32) -> bool:
        chance = self._detector.probability(frame)
        self._speaking = chance >= (self._end_at if self._speaking else self._begin_at)
        return self._speaking


class CascadeSegmenter(SileroSegmenter):
    """The cheap detector listens, the network confirms."""

    def __init__(self, settings: CascadeSettings, rate_hz: int) -> None:
        super().__init__(settings, rate_hz)
        self._cheap = WebrtcDetector(settings.aggressiveness, rate_hz)
        self._heard = RATE_HZ * FRAME_MS // 1000
        self._rest_after = round(settings.rest_after_ms / (FRAME * 1000 / RATE_HZ))
        self._quiet = self._rest_after + 1
        for _ in range(SETTLE_FRAMES):
            self._detector.probability(np.zeros(FRAME, np.float32))
        self._settled = self._detector.state
        self._detector.forget(self._settled)

    def active(self, frame: F32) -> bool:
        self._quiet = 0 if self._cheap.speech(frame[: self._heard]) else self._quiet + 1
        if self._quiet <= self._rest_after:
            return super().active(frame)
        if self._quiet == self._rest_after + 1:
            self._detector.forget(self._settled)
            self._speaking = False
        return False


def open_silero(settings: Mapping[str, Any], rate_hz: int) -> SileroSegmenter:
    """Make a `SileroSegmenter`.

    Raises:
        ConfigError: a setting or the sample rate is wrong.
    """
    return SileroSegmenter(read_settings(SileroSettings, settings, where="segmenter silero"), rate_hz)


def open_cascade(settings: Mapping[str, Any], rate_hz: int) -> CascadeSegmenter:
    """Make a `CascadeSegmenter`.

    Raises:
        ConfigError: a setting or the sample rate is wrong.
    """
    return CascadeSegmenter(read_settings(CascadeSettings, settings, where="segmenter cascade"), rate_hz)
