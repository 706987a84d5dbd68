"""Builds the web application: routes, error answers, access and security headers.

Rules:
- A factory: what it needs is passed in, so that tests run the real application on parts of their own.
- Errors of `cloud.errors` become JSON `{"error", "hint"}` with their status; anything else is a bug and a 500.
"""

from importlib import import_module
from importlib.util import find_spec

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from cloud.access import AccessMiddleware
from cloud.errors import CloudError
from cloud.services import Services

ROUTERS = (
    "cloud.routes.health",
    "cloud.routes.enrol",
    "cloud.routes.devices",
    "cloud.routes.inputs",
    "cloud.routes.bundles",
    "cloud.routes.tuf",
    "cloud.routes.review",
    "cloud.routes.rollouts",
    "cloud.console.pages",
)
"""Modules with a `router` of their own."""


def create_app(services: Services) -> FastAPI:
    """Return the application over these parts."""
    app = FastAPI(title="Lineside", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")
    app.state.services = services
    app.add_exception_handler(CloudError, _answer_error)
    app.add_middleware(AccessMiddleware, services=services)
    for name in ROUTERS:
        if _exists(name):
            module = import_module(name)
            app.include_router(module.router)
            if hasattr(module, "mount"):
                module.mount(app)  # static files of the console
    return app


def _exists(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _answer_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CloudError)
    return JSONResponse({"error": str(error), "hint": error.hint}, status_code=error.status)
