"""A real HTTP server for tests that serves bytes by path, with Range, and misbehaves on demand."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass
class Request:
    """What came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Behaviour:
    """How the next answers go wrong; every field may be changed at any time."""

    cut_after_bytes: int | None = None
    """Every connection ends after this many bytes of a body."""
    endless: bool = False
    """The body never ends and has no length."""
    ignore_range: bool = False
    wrong_range: bool = False
    """206 with a range that was not asked for."""
    retry_after: str | None = None
    """Goes with each of the following statuses."""
    status: list[int] = field(default_factory=list)
    """Answers with these instead, one each, before it goes on as usual."""
    drip_s: float | None = None
    """One byte per this many seconds."""
    answer: Callable[[Request], tuple[int, bytes]] | None = None
    """Answers anything that is not a file."""


class WebServer:
    """`with WebServer() as server:` serves `server.files` at `server.url`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviour = Behaviour()
        self.requests: list[Request] = []
        self.body_bytes = 0
        """Bytes of bodies sent so far."""
        self.stopping = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="webserver", daemon=True)

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                return

            def do_GET(self) -> None:
                _serve(server, self)

            do_PUT = do_POST = do_GET  # noqa: N815

        return Handler


def _serve(server: WebServer, handler: BaseHTTPRequestHandler) -> None:
    body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    request = Request(handler.command, handler.path, dict(handler.headers), body)
    server.requests.append(request)
    behaviour = server.behaviour
    try:
        if behaviour.status:
            wait = {} if behaviour.retry_after is None else {"Retry-After": behaviour.retry_after}
            _send(server, handler, behaviour.status.pop(0), b"busy, not now", wait)
        elif request.method == "GET" and request.path in server.files:
            _send_file(server, handler, server.files[request.path])
        elif behaviour.answer is not None:
            status, data = behaviour.answer(request)
            _send(server, handler, status, data, {})
        else:
            _send(server, handler, 404, b"nothing here", {})
    except OSError:
        handler.close_connection = True


def _send_file(server: WebServer, handler: BaseHTTPRequestHandler, data: bytes) -> None:
    asked = handler.headers.get("Range")
    behaviour = server.behaviour
    if behaviour.endless:
        _send_endless(server, handler)
    elif asked is None or behaviour.ignore_range:
        _send(server, handler, 200, data, {})
    else:
        first = int(asked.removeprefix("bytes=").split("-")[0])
        if first >= len(data):
            _send(server, handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return
        said = 0 if behaviour.wrong_range else first
        _send(server, handler, 206, data[first:], {"Content-Range": f"bytes {said}-{len(data) - 1}/{len(data)}"})


def _send(
    server: WebServer, handler: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str]
) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    if server.behaviour.drip_s is not None:
        for byte in data:
            if server.stopping.wait(server.behaviour.drip_s):
                return
            handler.wfile.write(bytes([byte]))
        return
    cut = server.behaviour.cut_after_bytes
    sent = data if cut is None else data[:cut]
    server.body_bytes += len(sent)  # before it goes: who has it may ask at once
    handler.wfile.write(sent)
    handler.close_connection = cut is not None


def _send_endless(server: WebServer, handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while not server.stopping.is_set():
        server.body_bytes += 65536
        handler.wfile.write(b"x" * 65536)
