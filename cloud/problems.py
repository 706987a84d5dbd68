"""What every call may answer when it is not done, as the interface's own document states it, and who answers so.

Rules:
- One form for all: `{"error", "hint"}`; for a body or parameter that does not fit, the error names each place.
- `405` names every method that the address knows (RFC 9110, 15.5.6), over all routes.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cloud.console.problems import answer
from cloud.errors import CloudError, InvalidError
from cloud.roles import methods_of

NAMED = 8
"""Places in a body that one answer names; the rest are counted."""

GONE = "the address may be misspelt, or what it named is gone"


class Problem(BaseModel):
    """Why a call was not done, and what to do."""

    error: str
    hint: str


ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": words}
    for status, words in {
        400: "It cannot be read",
        401: "The caller did not say who it is",
        403: "The caller may not do this",
        404: "There is no such thing",
        405: "This address knows other methods",
        409: "It contradicts what is already there",
        413: "It is larger than allowed",
        422: "It is not what it should be",
        429: "Asked too often; `Retry-After` says when to ask again",
        503: "A part that is needed is not there now",
    }.items()
}
"""For the application's `responses`."""


def add_to(app: FastAPI) -> None:
    """Let every error leave the application in this form."""
    app.add_exception_handler(CloudError, _answer_ours)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


def _answer_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, CloudError)
    return answer(error, request, now_ms=request.app.state.services.clock.now_ms())


def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _answer_ours(request, InvalidError(_in_words(error.errors())))


def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework raises: no such address, no such method, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    ours = CloudError(GONE if error.detail == "Not Found" else str(error.detail))
    ours.status = error.status_code
    answered = _answer_ours(request, ours)
    answered.headers.update(error.headers or {})
    if error.status_code == 405:
        answered.headers["Allow"] = ", ".join(sorted(methods_of(request.url.path)))
    return answered


def _answer_nobody(_request: Request, _error: Exception) -> Response:
    """Whoever sent has gone in the middle of it, as devices behind a cut cable do: no fault, and nobody to answer."""
    return Response(status_code=400)


def _in_words(found: Sequence[Any]) -> str:
    places = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in found[:NAMED]]
    more = len(found) - len(places)
    return "; ".join(places) + (f"; and {more} more" if more else "")
