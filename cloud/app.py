"""Builds the web application: routes, error answers, access and security headers.

Rules:
- A factory: what it needs is passed in, so that tests run the real application on parts of their own.
- Errors of `cloud.errors` become JSON `{"error", "hint"}` with their status, or a page where a person asked for one;
  anything else is a bug and a 500.
- A route that has no rule in `cloud.roles` stops it from starting.
"""

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cloud.access import AccessMiddleware, check_rules
from cloud.callers import Callers
from cloud.console import accounts, pages
from cloud.console.problems import answer
from cloud.errors import CloudError
from cloud.roles import is_for_devices
from cloud.routes import bundles, devices, enrol, health, inputs, people, review, rollouts, session, tuf
from cloud.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(title="Lineside", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.services = services
    app.state.callers = Callers(services)
    app.add_exception_handler(CloudError, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_exception_handler(RequestValidationError, _answer_wrong)
    app.add_middleware(AccessMiddleware, services=services)
    for module in (health, enrol, devices, inputs, bundles, tuf, review, rollouts, session, people, pages, accounts):
        app.include_router(module.router)
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


def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """Whoever sent has gone in the middle of it, as devices behind a cut cable do: no fault, and nobody to answer."""
    return Response(status_code=400)


def _answer_wrong(_request: Request, error: Exception) -> Response:
    """What is wrong and where, without what came: whoever sent it logs the answer, and it may hold a claim."""
    assert isinstance(error, RequestValidationError)
    told = [{key: each[key] for key in ("type", "loc", "msg")} for each in error.errors()]
    return JSONResponse({"detail": told}, status_code=422)


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, CloudError)
    return answer(error, request, now_ms=request.app.state.services.clock.now_ms())
