"""Builds the web application: routes, error answers, access and security headers.

Rules:
- A factory: what it needs is passed in, so that tests run the real application on parts of their own.
- Errors become JSON `{"error", "hint"}` with their status (`cloud.problems`), or a page where a person asked for one;
  what is none of `cloud.errors` is a bug and a 500.
- A route that has no rule in `cloud.roles` stops it from starting.
"""

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud import problems
from cloud.access import AccessMiddleware, check_rules
from cloud.callers import Callers
from cloud.console import accounts, making, pages, trail, watching
from cloud.roles import is_for_devices
from cloud.routes import (
    alerts,
    authority,
    bundles,
    cards,
    devices,
    drift,
    enrol,
    health,
    inputs,
    metrics,
    people,
    prometheus,
    retraining,
    review,
    rollouts,
    session,
    tuf,
)
from cloud.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(
        title="Lineside", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json", responses=problems.ANSWERS
    )
    app.state.services = services
    app.state.callers = Callers(services)
    problems.add_to(app)
    app.add_middleware(AccessMiddleware, services=services)
    for module in (
        health,
        enrol,
        devices,
        inputs,
        bundles,
        tuf,
        review,
        rollouts,
        session,
        people,
        pages,
        accounts,
        cards,
        making,
    ):
        app.include_router(module.router)
    for module in (metrics, prometheus, drift, alerts, retraining, watching):
        app.include_router(module.router)
    app.include_router(authority.router)
    app.include_router(trail.router)
    pages.mount(app)
    check_rules(app.routes)
    return app


class DeviceDoor:
    """The application as devices see it at their own port: nothing is there but what devices call."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event."""
        if scope["type"] == "http" and not is_for_devices(scope["method"], scope["path"]):
            words = {"error": "this port is for devices", "hint": "the console has another one; see server.port"}
            await JSONResponse(words, status_code=404)(scope, receive, send)
            return
        await self._app(scope, receive, send)
