"""Serves the device's own page from within the daemon's event loop, until it is cancelled."""

import os
import socket

from starlette.applications import Starlette

from edge.httpserver import make_server

MAX_CONNECTIONS = 32
"""A person, a scraper, and some tabs that were left open."""
GRACE_S = 1
"""For answers that are on their way when it ends."""


async def serve(app: Starlette, host: str, port: int) -> None:
    """Serve until cancelled.

    Raises:
        OSError: the address cannot be bound.
    """
    server = make_server(app, max_connections=MAX_CONNECTIONS, refused=lambda: None, timeout_graceful_shutdown=GRACE_S)
    with _listening(host, port) as listening:
        try:
            await server.serve(sockets=[listening])
        finally:
            # Cancelling alone leaves it listening: the next start of the task would find the port taken.
            if server.started:
                await server.shutdown(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    # Not left to uvicorn, which ends the process where it cannot bind; here that is one task's trouble.
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        words = f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}"
        raise OSError(f"{words}; end what has the port, or set another in [local] listen") from error
