"""Says that the control plane is up, and lets an operator's browser sign in."""

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select

from cloud.access import COOKIE, cookie_value
from cloud.errors import RefusedError
from cloud.services import Parts

router = APIRouter()

COOKIE_S = 12 * 3600
"""A working shift."""


@router.get("/healthz")
def healthz(parts: Parts) -> dict[str, Any]:
    """Answer if the database can be read."""
    with parts.store.read() as connection:
        connection.execute(select(1))
    return {"ok": True}


@router.post("/login")
def login(request: Request, parts: Parts, token: Annotated[str, Form()]) -> Response:
    """Give the browser a cookie for the right token; the form itself is a page of the console.

    Raises:
        RefusedError: it is another one.
    """
    expected = parts.config.operator_token()
    if expected is not None:
        if not hmac.compare_digest(token.encode(), expected.encode()):
            if "text/html" in request.headers.get("accept", ""):
                return RedirectResponse("/login?failed=1", status_code=303)
            raise RefusedError("this is not the operator's token")
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(
            COOKIE,
            cookie_value(expected),
            max_age=COOKIE_S,
            httponly=True,
            samesite="strict",
            secure=parts.config.server.public_url.startswith("https:"),
        )
        return answer
    return RedirectResponse("/", status_code=303)
