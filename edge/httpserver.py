"""What the device's two HTTP servers share: bounds on connections that nobody can sit on for ever.

Rules:
- Beyond `max_connections` a request is refused like any that finds no room: 429, a JSON error, Retry-After.
- Beyond twice as many a connection is closed as it comes: each takes a descriptor, and the record needs some too.
- A connection on which no request has come whole to the end of its head in time is closed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

CEILING = 2
"""Times `max_connections`, after which nobody is answered any more."""
HEAD_S = 10.0
"""Longest time for the head of a request: a few hundred bytes."""
RETRY_AFTER_S = 1


class Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def make_server(app: ASGIApp, *, max_connections: int, refused: Callable[[], None], **settings: Any) -> Server:
    """Return a server for an application.

    Args:
        app: what answers.
        max_connections: beyond so many, requests are refused with 429.
        refused: called for each request that is.
        settings: further settings of uvicorn's.
    """
    admitted = _Admitted(app, max_connections, refused)
    config = uvicorn.Config(
        admitted,
        http=_Bounded,
        limit_concurrency=max_connections * CEILING + 1,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        **settings,
    )
    server = Server(config)
    admitted.connections = server.server_state.connections
    return server


class _Admitted:
    """The application, for as many as it is meant for."""

    def __init__(self, app: ASGIApp, most: int, refused: Callable[[], None]) -> None:
        self._app, self._most, self._refused = app, most, refused
        self.connections: set[Any] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.connections) <= self._most:
            await self._app(scope, receive, send)
            return
        self._refused()
        words = f"busy: {len(self.connections)} connections, expected at most {self._most}"
        headers = {"Retry-After": str(RETRY_AFTER_S), "Connection": "close"}
        await JSONResponse({"error": f"{words}; try again in {RETRY_AFTER_S} s"}, 429, headers)(scope, receive, send)


class _Bounded(H11Protocol):
    """uvicorn's protocol, which waits for the head of a request for ever, on any number of connections."""

    _overdue: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            transport.close()
        else:
            self._wait_for_a_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._idle:
            self._wait_for_a_head()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_a_head(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEAD_S, self._give_up)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _give_up(self) -> None:
        self._overdue = None
        if self._idle:
            self.transport.close()
