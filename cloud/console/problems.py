"""Errors as answers: JSON for machines, a page for people, and the way to the sign-in for who is not signed in.

Rules:
- A person is who asks for HTML; calls of the interface (`/v1`, `/tuf`) are answered in JSON whoever asks.
- After signing in, people come back to the page that they had asked for.
"""

import re
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from cloud.console.render import Renderer
from cloud.errors import CloudError, TooManyError

TITLES = {403: "You may not do this", 404: "There is no such page", 429: "Too many attempts"}


def answer(error: CloudError, request: Request, *, now_ms: int) -> Response:
    """Return the answer for an error."""
    headers = {"Retry-After": f"{error.retry_after_s:.0f}"} if isinstance(error, TooManyError) else {}
    if error.status == 401 and "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(login_path(request), status_code=303)
    if not wants_page(request):
        return JSONResponse({"error": str(error), "hint": error.hint}, status_code=error.status, headers=headers)
    page = problem_page(request, error.status, str(error), hint=error.hint, now_ms=now_ms)
    page.headers.update(headers)
    return page


def problem_page(
    request: Request, status: int, words: str, *, title: str = "", hint: str = "", now_ms: int
) -> Response:
    """Return the page that says what went wrong; with the way to other pages for who may see any."""
    renderer: Renderer = request.app.state.console
    caller = getattr(request.state, "caller", None)
    said = words[:1].upper() + words[1:]
    values: dict[str, Any] = {
        "title": title or TITLES.get(status, "This did not work"),
        "words": said if said.endswith((".", "!", "?")) else f"{said}.",
        "hint": hint,
        "badges": None if caller is None else {},
        "here": "",
        "caller": caller,
    }
    return renderer.page("error.html", values, now_ms=now_ms, status=status)


def wants_page(request: Request) -> bool:
    """Return whether a person asks with a browser."""
    return "text/html" in request.headers.get("accept", "") and not re.match(r"/(v1|tuf)/", request.url.path)


def login_path(request: Request) -> str:
    """Return the way to the sign-in and back."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if request.method != "GET" or wanted == "/" else f"/login?next={quote(wanted, safe='/')}"


def local_path(wanted: str) -> str:
    """Return a path of ours to go to, and the first page for anything that leads elsewhere."""
    return wanted if re.fullmatch(r"/(?![/\\])[^\s\\]*", wanted) else "/"
