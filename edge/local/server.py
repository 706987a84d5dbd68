"""Serves the device's own page from within the daemon's event loop, until it is cancelled."""

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

MAX_CONNECTIONS = 32
"""A person, a scraper, and some tabs that were left open."""


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the daemon has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: Starlette, host: str, port: int) -> None:
    """Serve until cancelled.

    Raises:
        OSError: the address cannot be bound.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        limit_concurrency=MAX_CONNECTIONS,
    )
    server = _Server(config)
    try:
        # uvicorn ends the process where it cannot bind; here that is one task's trouble, told and tried again.
        await server.serve()
    except SystemExit as error:
        raise OSError(f"cannot listen on {host}:{port}") from error
    finally:
        server.should_exit = True
