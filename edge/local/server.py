"""Serves the device's own page from within the daemon's event loop, until it is cancelled."""

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
    server = make_server(
        app,
        max_connections=MAX_CONNECTIONS,
        refused=lambda: None,
        host=host,
        port=port,
        timeout_graceful_shutdown=GRACE_S,
    )
    try:
        # uvicorn ends the process where it cannot bind; here that is one task's trouble, told and tried again.
        await server.serve()
    except SystemExit as error:
        raise OSError(f"cannot listen on {host}:{port}") from error
    finally:
        # Cancelling alone leaves it listening: the next start of the task would find the port taken.
        if server.started:
            await server.shutdown()
