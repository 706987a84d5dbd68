"""The settings of every source, in one light module: a configuration is checked without their libraries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from edge.settings import Settings

LOOPBACK = ("127.0.0.1", "localhost")


class FileSettings(Settings):
    """Settings of the sources that read files."""

    path: Path
    """A folder, or a single file."""
    pattern: str | None = Field(default=None, max_length=200)
    """Names to take, for example `cam1_*.jpg`; without one, every file that the source can read."""
    rate_per_s: float | None = Field(default=None, gt=0, le=10_000)
    """At most this many files a second; without one, as fast as they are taken."""
    loop: bool = False
    """Begin again after the last file, for ever; decided files are then decided again."""
    watch: bool = True
    """Wait for new files after the last one."""


class AudioFileSettings(FileSettings):
    """Settings of the `audio_file` source."""

    segments: dict[str, Any] | None = None
    """What finds speech in a file, for example `{ kind = "cascade" }`; without it, a file is one window."""
    rate_hz: int = Field(default=16_000, ge=8_000, le=192_000)
    """Files are brought to this rate before speech is looked for."""
    real_time: bool = False
    """Hear files as fast as they were spoken; else as fast as can be."""

    @model_validator(mode="after")
    def _paced(self) -> Self:
        if self.real_time and self.segments is None:
            raise ValueError("real_time needs segments: a file that is one window has no pace")
        return self


class CameraSettings(Settings):
    """Settings of the `camera` source; exactly one of `device`, `url` and `path`."""

    device: int | str | None = None
    """A local camera: its number, or a path such as `/dev/v4l/by-id/…`, which stays the same when it is replugged."""
    url: str | None = Field(default=None, pattern="^(rtsp|rtsps|http|https)://")
    """A camera in the network: RTSP, or MJPEG over HTTP."""
    path: Path | None = None
    """A video file."""
    frames: Literal["newest", "every"] | None = None
    """`newest`: never a stale one, the others are counted. `every`: all in order. Without: newest, every for a file."""
    trigger: dict[str, Any] | None = None
    """What says that a part is in place, for example `{ kind = "line", port = 5020 }`; without, every frame counts."""
    delay_ms: float = Field(default=0.0, ge=0, le=60_000)
    """From the trigger to the frame."""
    width: int | None = Field(default=None, ge=16, le=20_000)
    height: int | None = Field(default=None, ge=16, le=20_000)
    """Size asked of the camera and expected of each frame; without, that of the first frame."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Rate asked of a local camera."""
    max_gap_s: float = Field(default=2.0, gt=0, le=3600)
    """Longest silence of the camera, and longest wait for a frame after the trigger; beyond it, the camera is slow."""
    black_below: float = Field(default=0.02, ge=0, lt=1)
    """Mean brightness below which a frame is black; 0 for no check."""
    frozen_after_s: float = Field(default=10.0, ge=0, le=3600)
    """How long a picture may stay the same to the last bit; 0 for no check (cameras that compress a still scene)."""
    queue: int = Field(default=8, ge=1, le=1000)
    """Most frames that wait, each in memory at its full size."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(place is not None for place in (self.device, self.url, self.path)) != 1:
            raise ValueError("expected exactly one of device, url and path")
        if (self.width is None) != (self.height is None):
            raise ValueError("expected width and height, or neither")
        return self

    @property
    def order(self) -> Literal["newest", "every"]:
        return self.frames or ("every" if self.path is not None else "newest")

    @property
    def words(self) -> str:
        """What it is called in the record; an address without its password."""
        if self.url is not None:
            parts = urlsplit(self.url)
            return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        return self.path.name if self.path is not None else f"camera {self.device}"


class HttpSettings(Settings):
    """Settings of the `http` source."""

    host: str = "127.0.0.1"
    """Where it listens; `0.0.0.0` for the whole network, then with a token."""
    port: int = Field(default=8470, ge=0, le=65535)
    token: str | None = Field(default=None, min_length=16)
    """Asked for as `Authorization: Bearer …`; without one, only this machine may send."""
    max_bytes: int = Field(default=32 * 2**20, ge=1024, le=256 * 2**20)
    """Largest picture or sound."""
    max_batch: int = Field(default=16, ge=1, le=1000)
    """Most inputs in one request to the batch endpoint."""
    max_waiting: int = Field(default=32, ge=1, le=10_000)
    """Inputs that wait to be decided; beyond, 429 with Retry-After."""
    max_waiting_bytes: int = Field(default=256 * 2**20, ge=1024)
    """What waits together, and what arrives together; beyond, 429 with Retry-After."""
    max_connections: int = Field(default=256, ge=1, le=10_000)
    """Beyond, 429 with Retry-After."""
    upload_s: float = Field(default=30.0, gt=0, le=600)
    """Longest time for a request to arrive whole; then 408."""
    answer_s: float = Field(default=10.0, gt=0, le=600)
    """Longest wait for a decision; then 504, and it is not decided any more if it was not begun."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.token is None and self.host not in LOOPBACK:
            raise ValueError(f"a token is needed where others than this machine can reach it ({self.host})")
        return self


class MicrophoneSettings(Settings):
    """Settings of the `microphone` source."""

    device: int | str | None = None
    """Number or part of the name; without one, the system's default."""
    rate_hz: int = Field(default=16_000, ge=8_000, le=192_000)
    block_ms: float = Field(default=20.0, ge=5, le=500)
    dead_after_s: float = Field(default=10.0, ge=0, le=3600)
    """How long the sound may be exactly silent; 0 for no check."""
    segments: dict[str, Any] = Field(default_factory=dict)
    """What finds a segment, for example `{ kind = "energy", threshold_dbfs = -35 }`."""


class ReplaySettings(Settings):
    """Settings of the `replay` source."""

    path: Path
    """The record, for example `data/lineside.sqlite` of a device."""
    station: str | None = None
    """Only this station's decisions."""
    verdict: Literal["pass", "divert", "accept", "defer"] | None = None
    """Only decisions that ended so then."""
    after_seq: int = Field(default=0, ge=0)
    """Only decisions after this one."""
    rate_per_s: float | None = Field(default=None, gt=0, le=10_000)
    """At most so many a second; without one, as fast as they are taken."""


SETTINGS: Mapping[str, type[Settings]] = {
    "folder": FileSettings,
    "audio_file": AudioFileSettings,
    "camera": CameraSettings,
    "http": HttpSettings,
    "replay": ReplaySettings,
    "microphone": MicrophoneSettings,
}
