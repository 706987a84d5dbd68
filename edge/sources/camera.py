"""A camera: a local one, one in the network, or a video file, through OpenCV; free running or by a trigger.

Rules:
- It is read by a thread of its own; what the pipeline decides on is as fresh as the camera gives it.
- A camera that is away, black, frozen, slow, damaged, or of another size is told apart; its windows carry the reason.
- A frame has no file: a PNG is made of it only if its decision is kept (`Window.encode`), so a replay sees the same.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2

from edge.clock import new_boot_id
from edge.errors import SourceError
from edge.imaging import encode_png
from edge.settings import read_settings
from edge.sources.capture import Capture, Device
from edge.sources.frames import FrameCheck
from edge.sources.interface import News
from edge.sources.jpegs import open_jpegs
from edge.sources.settings import CameraSettings
from edge.sources.shots import Shot, ShotRules, Shots
from edge.sources.triggers import open_trigger
from edge.values import Window

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources import Seen
    from edge.sources.triggers.interface import Trigger

_MEDIA_TYPE = "image/png"
_TIMEOUT_MS = 5000


class CameraSource:
    """Gives one window per frame or per part. `read` is used by one thread."""

    kind = "camera"

    def __init__(
        self, settings: CameraSettings, open_device: Callable[[], Device], trigger: "Trigger | None", clock: "Clock"
    ) -> None:
        """Begin to read the camera and to listen to the trigger.

        Raises:
            SourceError: the trigger's port is taken.
        """
        self._settings, self._clock, self._trigger = settings, clock, trigger
        self._opening = new_boot_id()[:12]
        is_file = settings.path is not None
        size = None if settings.width is None or settings.height is None else (settings.width, settings.height)
        rules = ShotRules(
            order=settings.order,
            max_gap_s=settings.max_gap_s,
            queue=settings.queue,
            triggered=trigger is not None,
            parts=trigger is None or trigger.parts,
            delay_s=settings.delay_ms / 1000,
            ends=is_file,
        )
        self._shots = Shots(clock, FrameCheck(size, settings.black_below, settings.frozen_after_s), rules)
        if trigger is not None:
            trigger.start(self._shots.fire)
        paced = is_file and (settings.order == "newest" or trigger is not None)
        pause_s = _frame_time_s(settings) if paced else None
        self._capture = Capture(open_device, self._shots, ends=is_file, pause_s=pause_s)

    def read(self, wait_s: float) -> Window | None:
        shot = self._shots.next(wait_s)
        return None if shot is None else self._window(shot)

    @property
    def exhausted(self) -> bool:
        return self._shots.exhausted

    @property
    def problem(self) -> str | None:
        """What is wrong with the camera or its trigger now, or None."""
        trigger = self._trigger.problem if self._trigger is not None else None
        return self._shots.problem or trigger

    @property
    def skipped(self) -> int:
        """Frames that were passed over for newer ones."""
        return self._shots.skipped

    def news(self) -> list[News]:
        return self._shots.news()

    def drain(self) -> None:
        """Hear the trigger no more; the parts that it named are still seen. What runs free has no parts."""
        if self._trigger is not None:
            self._trigger.close()
        self._shots.drain()

    @property
    def waiting(self) -> int:
        return self._shots.waiting

    def close(self) -> None:
        if self._trigger is not None:
            self._trigger.close()
        self._shots.close()
        self._capture.close()

    def _window(self, shot: Shot) -> Window:
        part = f"{shot.text} " if shot.text else ""
        return Window(
            source=self.kind,
            name=f"{part}{self._settings.words} #{shot.number}",
            key=f"{self._opening}-{shot.number}",
            media_type=_MEDIA_TYPE,
            data=shot.frame if shot.problem is None else None,
            problem=shot.problem,
            live=True,
            waited_ms=max(0.0, self._clock.monotonic_s() - shot.at_s) * 1000,
            encode=None if shot.frame is None else partial(encode_png, shot.frame),
        )


def open_source(settings: Mapping[str, Any], *, seen: "Seen", clock: "Clock") -> CameraSource:  # noqa: ARG001
    """Open the source; its settings are `CameraSettings`. The camera itself may come later.

    Raises:
        ConfigError: a setting is unknown or wrong.
        SourceError: there is no such video file, or the trigger cannot listen.
    """
    checked = read_settings(CameraSettings, settings, where="source camera")
    if checked.path is not None and not checked.path.is_file():
        raise SourceError(f"{checked.path}: there is no such file", hint="check the path and that its disk is mounted")
    trigger = None if checked.trigger is None else open_trigger(checked.trigger, clock=clock)
    return CameraSource(checked, partial(_open_device, checked), trigger, clock)


def _open_device(settings: CameraSettings) -> Device:
    """Open what OpenCV reads from; may take seconds."""
    wanted = {cv2.CAP_PROP_FRAME_WIDTH: settings.width, cv2.CAP_PROP_FRAME_HEIGHT: settings.height}
    if settings.device is not None:
        wanted[cv2.CAP_PROP_FPS] = settings.fps  # type: ignore[assignment]
        wanted[cv2.CAP_PROP_BUFFERSIZE] = 1
        parameters = [number for key, value in wanted.items() if value is not None for number in (key, int(value))]
        device = cv2.VideoCapture(settings.device, cv2.CAP_V4L2, parameters)
    elif settings.url is not None:
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        jpegs = open_jpegs(settings.url, limits) if settings.url.startswith("http") else None
        if jpegs is not None:
            return jpegs
        device = cv2.VideoCapture(settings.url, cv2.CAP_FFMPEG, limits)
    else:
        device = cv2.VideoCapture(str(settings.path), cv2.CAP_FFMPEG)
    if not device.isOpened():
        device.release()
        raise SourceError(f"{settings.words} cannot be opened", hint="is it plugged in, and used by nobody else?")
    return device


def _frame_time_s(settings: CameraSettings) -> float:
    """Return the time between two frames of a video file that plays at its own pace."""
    device = cv2.VideoCapture(str(settings.path), cv2.CAP_FFMPEG)
    try:
        rate = float(device.get(cv2.CAP_PROP_FPS))
    finally:
        device.release()
    return 1 / rate if 1 <= rate <= 1000 else 0.04
