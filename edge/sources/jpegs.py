"""Motion JPEG over HTTP: takes each picture out of the stream as it was sent, and decodes it here.

Rules:
- A picture has the size that it was sent in. OpenCV's own decoding scales all of a stream to the size of its first
  picture, so that a camera which was set to another size would be judged on stretched parts.
- A picture that cannot be decoded or has no end is damaged, not filled up with gray.
"""

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

_MJPG = int.from_bytes(b"MJPG", "little")
_END = b"\xff\xd9"
_PADDING_BYTES = 64
"""Some cameras fill up behind a picture's end."""


class DamagedFrameError(Exception):
    """This frame cannot be judged; the next one may be."""


class Packets(Protocol):
    """The part of OpenCV's `VideoCapture` that is needed."""

    def read(self) -> Any: ...

    def release(self) -> None: ...


class JpegStream:
    """A stream of JPEGs, decoded picture by picture."""

    def __init__(self, packets: Packets) -> None:
        self._packets = packets

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        """Return whether there is a picture, and its pixels (height, width, 3) uint8 in BGR order.

        Raises:
            DamagedFrameError: it cannot be decoded, or not to its end.
        """
        came, packet = self._packets.read()
        if not came or packet is None:
            return False, None
        raw = np.asarray(packet, np.uint8).ravel()
        if _END not in raw[-_PADDING_BYTES:].tobytes():
            raise DamagedFrameError(f"a JPEG of {raw.size:,} bytes without its end")
        picture = cv2.imdecode(raw, cv2.IMREAD_COLOR)
        if picture is None:
            raise DamagedFrameError(f"{raw.size:,} bytes that are no JPEG")
        return True, np.asarray(picture, np.uint8)

    def release(self) -> None:
        self._packets.release()


def open_jpegs(url: str, limits: list[int]) -> JpegStream | None:
    """Return a stream of JPEGs, or None if what is at the address is none or is not there.

    Args:
        url: of an HTTP camera.
        limits: OpenCV's parameters, key and value in turn.
    """
    packets = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [*limits, cv2.CAP_PROP_FORMAT, -1])
    if packets.isOpened() and int(packets.get(cv2.CAP_PROP_FOURCC)) == _MJPG:
        return JpegStream(packets)
    packets.release()
    return None
