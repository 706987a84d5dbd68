"""What of an input a station may keep, show and send: pure.

Rules:
- Without the consent of those who are heard nothing of a sound is stored, sent or shown: neither the sound, nor what
  the network made of it, nor the text that was understood. The verdict, its scores and the gate's measures stay.
- Consent is asked for each window, so that withdrawing it holds from the next one on.
- Recorded files that the operator names himself (`audio_file`, `folder`, `replay`) count as agreed to unless the
  settings say otherwise: he has the recording already. Who speaks into a microphone, or sends a sound, has not agreed.
"""

from typing import Literal

from edge.values import Judgement, StationSettings, Window
from edge.wire.rows import DecisionRow

RECORDED = ("audio_file", "folder", "replay")
"""Sources of what was recorded before, by somebody else."""

Kept = Literal["input", "features"]


def agreed_by_default(source: str) -> bool:
    """Return whether the sound of a kind of source may be kept if the settings say nothing about consent."""
    return source in RECORDED


def is_sound(media_type: str) -> bool:
    """Return whether somebody may be heard in it."""
    return media_type.startswith("audio/")


def may_use(settings: StationSettings, window: Window) -> bool:
    """Return whether anything of a window may be stored, sent or shown beyond its verdict."""
    heard = is_sound(window.media_type) or (window.data is not None and window.data.ndim == 1)
    return settings.sound_consent or not heard


def keeps(settings: StationSettings, judgement: Judgement, window: Window) -> Kept | None:
    """Return what is kept of a window, or None."""
    if settings.keep == "none" or not may_use(settings, window):
        return None
    if settings.keep == "features":
        return "features"
    if settings.keep == "deferred" and judgement.verdict != "defer" and judgement.reason is None:
        return None
    return "input"


def shown(settings: StationSettings, window: Window, decision: DecisionRow | None) -> tuple[Window, DecisionRow | None]:
    """Return what those may see who look at a station's last window.

    Args:
        settings: the station's.
        window: as its source gave it, masked already.
        decision: on it; None if it could not be recorded.
    """
    if may_use(settings, window):
        return window, decision
    bare = Window(window.source, window.name, window.key, window.media_type, None, problem="sound without consent")
    return bare, decision and decision.model_copy(update={"text": None})
