"""A real RTSP camera for tests: Motion JPEG over RTP (RFC 2435), interleaved in its RTSP connection (RFC 2326)."""

import contextlib
import itertools
import re
import socketserver
import struct
import threading
import time
from types import TracebackType
from typing import Any, Self

import cv2

from tests.edge.sources.mjpeg import HEIGHT, WIDTH, picture

QUALITY = 90
PERIOD_S = 0.02
_CLOCK_HZ = 90_000
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=line\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 26\r\na=control:track\r\n"
)
_EXTRA = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n",
    "PLAY": "Session: 1\r\n",
}


class RtspCamera:
    """`with RtspCamera() as camera:` serves at `camera.url`; one that is not plugged cuts its connections."""

    def __init__(self) -> None:
        self.plugged = True
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    camera._serve(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="rtsp", daemon=True)

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self._server.server_address[1]}/line"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.plugged = False
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, handler: Any) -> None:
        while self.plugged:
            lines = list(iter(lambda: handler.rfile.readline().strip(), b""))
            if not lines:
                return
            method = lines[0].split(b" ")[0].decode()
            number = next(re.findall(rb"\d+", line)[0] for line in lines if line.lower().startswith(b"cseq"))
            body = _SDP if method == "DESCRIBE" else ""
            kind = f"Content-Type: application/sdp\r\nContent-Base: {self.url}/\r\n" if body else ""
            head = f"RTSP/1.0 200 OK\r\nCSeq: {number.decode()}\r\n{_EXTRA.get(method, '')}{kind}"
            handler.wfile.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            if method == "PLAY":
                self._play(handler.wfile)

    def _play(self, out: Any) -> None:
        for sent in itertools.count():
            if not self.plugged:
                return
            payload = _payload(picture(sent))
            rtp = struct.pack(">BBHII", 0x80, 0x80 | 26, sent & 0xFFFF, round(sent * PERIOD_S * _CLOCK_HZ), 1)
            out.write(struct.pack(">cBH", b"$", 0, len(rtp) + len(payload)) + rtp + payload)
            time.sleep(PERIOD_S)


def _payload(frame: Any) -> bytes:
    """Return a frame as one RTP/JPEG packet: the tables follow from the quality, only the coded data travels."""
    raw = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    scan = raw.index(b"\xff\xda")
    coded = raw[scan + 2 + int.from_bytes(raw[scan + 2 : scan + 4], "big") : -2]
    return struct.pack(">BBHBBBB", 0, 0, 0, 1, QUALITY, WIDTH // 8, HEIGHT // 8) + coded
