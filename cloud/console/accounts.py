"""The pages about people: sign in, choose a password by a one-time link, one's own account, all accounts.

Rules:
- Forms that begin a session work without any script; the others are sent as the interface's calls.
- A link's secret and a token are shown once, by the page that asked for them, and never stored by it.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from cloud.callers import Callers, Calling
from cloud.console import pages
from cloud.console.problems import local_path, problem_page
from cloud.console.render import Renderer
from cloud.errors import CloudError, RefusedError, TooManyError
from cloud.passwords import SHORTEST
from cloud.roles import Role
from cloud.services import Parts, Services

router = APIRouter(include_in_schema=False)


@router.get("/login")
def login_page(request: Request, parts: Parts, wanted: Annotated[str, Query(alias="next")] = "/") -> Response:
    """Ask for name and password; `cloud.routes.session` takes them."""
    return login_form(request, parts, wanted=wanted)


@router.get("/join")
def join_page(request: Request, parts: Parts, invite: str = "") -> Response:
    """Let somebody choose a password by the link that they were given."""
    return join_form(request, parts, invite)


@router.get("/account")
def account_page(request: Request, parts: Parts, caller: Calling) -> Response:
    """Show one's own role and tokens, and let one change one's password."""
    tokens = parts.sessions.tokens(caller.name) if caller.has_account else []
    return pages.live_page(
        request, parts, "account.html", "/account", lambda _connection, _now_ms: {"tokens": tokens, "least": SHORTEST}
    )


@router.get("/people")
def people_page(request: Request, parts: Parts) -> Response:
    """List everybody with an account."""
    found = {"people": parts.people.everyone(), "roles": [role.word for role in Role]}
    return pages.live_page(request, parts, "people.html", "/people", lambda _connection, _now_ms: found)


def login_form(
    request: Request, parts: Services, *, error: CloudError | None = None, name: str = "", wanted: str = "/"
) -> Response:
    """Return the page to sign in at, with what went wrong before."""
    callers: Callers = request.app.state.callers
    values = {
        "asks_for_token": callers.asks_for_token,
        "is_open": callers.is_open(),
        "has_people": parts.people.exist(),
        "name": name,
        "wanted": local_path(wanted),
    }
    return _form(request, parts, "login.html", error, values)


def join_form(request: Request, parts: Services, invite: str, *, error: CloudError | None = None) -> Response:
    """Return the page to choose a password at, or say that the link is no good any more."""
    try:
        name = parts.people.invited(invite)
    except RefusedError as refused:
        now_ms = parts.clock.now_ms()
        title = "This link is no good any more"
        return problem_page(request, refused.status, str(refused), title=title, hint=refused.hint, now_ms=now_ms)
    return _form(request, parts, "join.html", error, {"name": name, "invite": invite, "least": SHORTEST})


def _form(
    request: Request, parts: Services, template: str, error: CloudError | None, values: dict[str, object]
) -> Response:
    renderer: Renderer = request.app.state.console
    common = {"here": "", "badges": None, "problem": str(error) if error else ""}
    status = error.status if error else 200
    page = renderer.page(template, {**values, **common}, now_ms=parts.clock.now_ms(), status=status)
    if isinstance(error, TooManyError):
        page.headers["Retry-After"] = f"{error.retry_after_s:.0f}"
    return page
