"""Serves the real application over real HTTP on a port of 127.0.0.1, for as long as a test needs it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn

from cloud.app import create_app
from cloud.services import Services
from tests.plainhttp import NOBODY
from tests.waiting import wait_until


@contextmanager
def serving(services: Services, **options: Any) -> Iterator[httpx.Client]:
    """Give a client of the running application; `options` go to the client."""
    config = uvicorn.Config(create_app(services), lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http", daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, 10, "the application")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=20, trust_env=False, verify=NOBODY, **options) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()
