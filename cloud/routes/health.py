"""Says that the control plane is up, and lets an operator's browser sign in."""

import hmac
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import select

from cloud.access import COOKIE, cookie_value
from cloud.errors import RefusedError
from cloud.services import Parts

router = APIRouter()

COOKIE_S = 12 * 3600
"""A working shift."""
LOGIN_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Lineside: sign in</title></head>
<body><main><h1>Sign in</h1><form method="post" action="/login"><label>Operator token
<input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Sign in</button></form></main></body></html>"""


@router.get("/healthz")
def healthz(parts: Parts) -> dict[str, Any]:
    """Answer if the database can be read."""
    with parts.store.read() as connection:
        connection.execute(select(1))
    return {"ok": True}


@router.get("/login", response_class=HTMLResponse)
def login_page() -> str:
    """Show the form."""
    return LOGIN_PAGE


@router.post("/login")
def login(parts: Parts, token: Annotated[str, Form()]) -> Response:
    """Give the browser a cookie for the right token.

    Raises:
        RefusedError: it is another one.
    """
    expected = parts.config.operator_token()
    if expected is not None:
        if not hmac.compare_digest(token.encode(), expected.encode()):
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
