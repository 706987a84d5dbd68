"""The settings of everything that finds speech, in one light module."""

from collections.abc import Mapping

from pydantic import Field, model_validator

from edge.settings import Settings

_HEARS_BY_PROFILE = {"phone": "cascade"}


def usual_segmenter(profile: str) -> str:
    """Return the kind that cuts running sound where `segments` names none, by the first word of the device's profile.

    Phones listen for speech, by what was measured as best for its cost (benchmarks/README.md). Other devices hear
    machines, which no detector of speech knows: there it is the level.
    """
    return _HEARS_BY_PROFILE.get(profile.partition("-")[0], "energy")


class SegmentSettings(Settings):
    """Where segments begin and end, whatever finds the speech."""

    pre_roll_ms: float = Field(default=200.0, ge=0, le=5000)
    hang_over_ms: float = Field(default=400.0, ge=0, le=10_000)
    min_ms: float = Field(default=120.0, ge=0, le=60_000)
    """Shortest time from the first to the last active frame."""
    max_ms: float = Field(default=10_000.0, ge=100, le=600_000)
    """Longest segment, pre-roll and hang-over included."""


class EnergySettings(SegmentSettings):
    """Settings of the `energy` segmenter."""

    threshold_dbfs: float = Field(default=-40.0, ge=-120, le=0)
    """A frame that is louder (RMS, of full scale) is active."""
    frame_ms: float = Field(default=20.0, ge=5, le=100)


class WebrtcSettings(SegmentSettings):
    """Settings of the `webrtc` segmenter."""

    aggressiveness: int = Field(default=2, ge=0, le=3)
    """How readily a frame counts as noise: 0 hardly ever, 3 most readily."""


class SileroSettings(SegmentSettings):
    """Settings of the `silero` segmenter."""

    begin: float = Field(default=0.5, gt=0, lt=1)
    """Probability from which a frame is speech."""
    end: float = Field(default=0.35, gt=0, lt=1)
    """Probability below which speech that has begun is over."""

    @model_validator(mode="after")
    def _ordered(self) -> "SileroSettings":
        if self.end > self.begin:
            raise ValueError(f"end {self.end} must not be above begin {self.begin}")
        return self


class CascadeSettings(SileroSettings):
    """Settings of the `cascade` segmenter."""

    aggressiveness: int = Field(default=1, ge=0, le=3)
    """Of WebRTC's detector, which wakes the network: low, because what it misses nobody hears."""
    rest_after_ms: float = Field(default=500.0, ge=0, le=10_000)
    """The network rests when the cheap detector has heard nothing for so long."""


SETTINGS: Mapping[str, type[Settings]] = {
    "energy": EnergySettings,
    "webrtc": WebrtcSettings,
    "silero": SileroSettings,
    "cascade": CascadeSettings,
}
