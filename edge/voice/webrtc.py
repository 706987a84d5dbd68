"""Finds speech with WebRTC's detector: Gaussian mixtures on six bands, a few microseconds a frame.

Rules:
- It is cheap and hears too much: it lets nearly all speech through, and much noise with it. Alone it suits quiet
  places; before a network (`cascade`) it saves the network's work on silence.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import webrtcvad

from edge.errors import ConfigError
from edge.settings import read_settings
from edge.sources.segments import F32, FrameSegmenter
from edge.voice.settings import WebrtcSettings

RATES_HZ = (8_000, 16_000, 32_000, 48_000)
FRAME_MS = 30


class WebrtcDetector:
    """Says whether a frame of 10, 20 or 30 ms is speech."""

    def __init__(self, aggressiveness: int, rate_hz: int) -> None:
        """Begin.

        Raises:
            ConfigError: it does not take this sample rate.
        """
        if rate_hz not in RATES_HZ:
            raise ConfigError(f"webrtc: expected a sample rate of {', '.join(map(str, RATES_HZ))} Hz, got {rate_hz}")
        self._vad, self._rate_hz = webrtcvad.Vad(aggressiveness), rate_hz

    def speech(self, frame: F32) -> bool:
        """Return whether there is speech in a frame (samples,) float32 in −1…1."""
        samples = np.clip(np.rint(frame * 32767), -32768, 32767).astype("<i2")
        return bool(self._vad.is_speech(samples.tobytes(), self._rate_hz))


class WebrtcSegmenter(FrameSegmenter):
    """Segments of what WebRTC's detector takes for speech."""

    def __init__(self, settings: WebrtcSettings, rate_hz: int) -> None:
        super().__init__(settings, rate_hz, rate_hz * FRAME_MS // 1000)
        self._detector = WebrtcDetector(settings.aggressiveness, rate_hz)

    def active(self, frame: F32) -> bool:
        return self._detector.speech(frame)


def open_webrtc(settings: Mapping[str, Any], rate_hz: int) -> WebrtcSegmenter:
    """Make a `WebrtcSegmenter`.

    Raises:
        ConfigError: a setting or the sample rate is wrong.
    """
    return WebrtcSegmenter(read_settings(WebrtcSettings, settings, where="segmenter webrtc"), rate_hz)
