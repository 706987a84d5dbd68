"""Builds the web application: routes, error answers, access and security headers.

Rules:
- A factory: what it needs is passed in, so that tests run the real application on parts of their own.
- Errors of `cloud.errors` become JSON `{"error", "hint"}` with their status; anything else is a bug and a 500.
"""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from cloud.access import AccessMiddleware
from cloud.console import pages
from cloud.errors import CloudError
from cloud.routes import bundles, devices, enrol, health, inputs, review, rollouts, tuf
from cloud.services import Services


def create_app(services: Services) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(title="Lineside", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.services = services
    app.add_exception_handler(CloudError, _answer_error)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)
    app.add_middleware(AccessMiddleware, services=services)
    for module in (health, enrol, devices, inputs, bundles, tuf, review, rollouts, pages):
        app.include_router(module.router)
    pages.mount(app)
    return app


def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """Whoever sent has gone in the middle of it, as devices behind a cut cable do: no fault, and nobody to answer."""
    return Response(status_code=400)


def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CloudError)
    return JSONResponse({"error": str(error), "hint": error.hint}, status_code=error.status)
