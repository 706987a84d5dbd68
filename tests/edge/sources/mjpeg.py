"""A real camera in the network for tests: an HTTP server that sends a stream of JPEGs, and misbehaves on demand."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 64, 48
PERIOD_S = 0.01


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Return a frame of gray squares that differs from that of every other number, also after compression."""
    squares = np.random.default_rng(number).integers(60, 200, (6, 8)).astype(np.uint8)
    gray = cv2.resize(squares, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.repeat(gray[:, :, None], 3, axis=2)


class MjpegCamera:
    """`with MjpegCamera() as camera:` streams at `camera.url`; `camera.show` may be changed at any time."""

    def __init__(self) -> None:
        self.sent = 0
        self.show: Any = picture
        """From a frame's number to the frame, or to the bytes of a JPEG; None sends nothing for a while."""
        self.plugged = True
        self._stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="mjpeg", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/stream.mjpg"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                if not camera.plugged:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    camera._stream(self.wfile)
                except OSError:
                    self.close_connection = True

        return Handler

    def _stream(self, out: Any) -> None:
        while self.plugged and not self._stopping.is_set():
            frame = self.show(self.sent)
            if frame is not None:
                raw = frame if isinstance(frame, bytes) else cv2.imencode(".jpg", frame)[1].tobytes()
                out.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(raw))
                out.write(raw + b"\r\n")
                self.sent += 1
            time.sleep(PERIOD_S)


def write_video(path: Any, frames: int) -> None:
    """Write a real video file of Motion JPEGs at 50 frames a second."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number))
    writer.release()
