"""Signs people in and out: sessions for browsers, tokens for scripts, and what belongs to oneself.

| call                      | body                          | answer                                               |
|---------------------------|-------------------------------|------------------------------------------------------|
| `POST /login`             | form: name, password or token | a session's cookie, and the way to the page          |
| `POST /join`              | form: invite, password, again | the same, for who uses a one-time link               |
| `POST /logout`            |                               | the session is over                                  |
| `POST /v1/login`          | `LoginRequest`                | 201 and a token, shown here only                     |
| `GET /v1/me`              |                               | name, role, kind                                     |
| `POST /v1/me/password`    | `PasswordRequest`             | 204; all other sessions and all tokens are over      |
| `GET /v1/tokens`          |                               | one's own tokens, without the secrets                |
| `POST /v1/tokens`         | `TokenRequest`                | 201 and a token, shown here only                     |
| `DELETE /v1/tokens/{id}`  |                               | 204                                                  |
"""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, Field

from cloud.callers import COOKIE, Caller, Callers, Calling, session_secret
from cloud.console import accounts
from cloud.console.problems import local_path, wants_page
from cloud.errors import CloudError, ConflictError, InvalidError, RefusedError
from cloud.roles import Role, RoleWord
from cloud.services import Parts, Services
from cloud.sessions import LONGEST_TOKEN_DAYS, OPERATOR, SESSION_S, Holder, operator_mark

router = APIRouter()

Text = Annotated[str, Form(max_length=1024)]
Days = Annotated[float, Field(gt=0, le=LONGEST_TOKEN_DAYS)]
TOKEN_DAYS = 90.0


class TokenRequest(BaseModel):
    """What a token is for; without a role it may do what its owner may."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=64)
    role: RoleWord | None = None
    days: Days = TOKEN_DAYS


class LoginRequest(BaseModel):
    """Who signs in from the command line, and for how long."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    password: str = Field(max_length=1024)
    label: str = Field(default="command line", min_length=1, max_length=64)
    days: Days = TOKEN_DAYS


class PasswordRequest(BaseModel):
    """The present password and the new one."""

    model_config = ConfigDict(extra="forbid")

    old: str = Field(max_length=1024)
    new: str = Field(max_length=1024)


@router.post("/login", include_in_schema=False)
def login(
    request: Request,
    parts: Parts,
    name: Text = "",
    password: Text = "",
    token: Text = "",
    wanted: Annotated[str, Form(alias="next", max_length=1024)] = "/",
) -> Response:
    """Begin a session for name and password, or for the operator's token; the form itself is a page of the console."""
    callers: Callers = request.app.state.callers
    if callers.is_open():
        return RedirectResponse("/", status_code=303)
    address = _address(request)
    try:
        if token:
            holder = _operator(callers, parts, token, address)
        else:
            holder = parts.people.sign_in(name, password, address=address)
    except CloudError as error:
        if not wants_page(request):
            raise
        return accounts.login_form(request, parts, error=error, name=name, wanted=wanted)
    return _signed_in(parts, holder, wanted)


@router.post("/join", include_in_schema=False)
def join(request: Request, parts: Parts, invite: Text, password: Text, again: Text) -> Response:
    """Keep the password that somebody chose, and begin a session."""
    try:
        if password != again:
            raise InvalidError("the two passwords are not the same")
        name = parts.people.join(invite, password)
    except CloudError as error:
        if not wants_page(request):
            raise
        return accounts.join_form(request, parts, invite, error=error)
    return _signed_in(parts, name, "/")


@router.post("/logout", include_in_schema=False)
def logout(request: Request, parts: Parts) -> Response:
    """End the browser's session."""
    parts.sessions.end(session_secret(request.headers))
    answer = RedirectResponse("/login", status_code=303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=_is_secure(parts))
    return answer


@router.post("/v1/login", status_code=201)
def login_for_token(body: LoginRequest, request: Request, parts: Parts) -> dict[str, Any]:
    """Make a token for name and password."""
    name = parts.people.sign_in(body.name, body.password, address=_address(request))
    holder = Holder(name, parts.people.role_of(name))
    return parts.sessions.create_token(holder, label=body.label, role=holder.role, days=body.days)


@router.get("/v1/me")
def me(caller: Calling) -> dict[str, Any]:
    """Say who the caller is."""
    return {"name": caller.name, "role": caller.role.word, "kind": caller.kind, "token": caller.token_id}


@router.post("/v1/me/password", status_code=204)
def change_password(body: PasswordRequest, request: Request, parts: Parts, caller: Calling) -> Response:
    """Take another password; a browser stays signed in by a new session."""
    parts.people.change_password(_account(caller), body.old, body.new, address=_address(request))
    answer = Response(status_code=204)
    if caller.kind == "session":
        _give_session(answer, parts, caller.name)
    return answer


@router.get("/v1/tokens")
def tokens(parts: Parts, caller: Calling) -> list[dict[str, Any]]:
    """List the caller's tokens."""
    return parts.sessions.tokens(caller.name) if caller.has_account else []


@router.post("/v1/tokens", status_code=201)
def create_token(body: TokenRequest, parts: Parts, caller: Calling) -> dict[str, Any]:
    """Make a token for the caller."""
    _account(caller)
    role = caller.role if body.role is None else Role.named(body.role)
    return parts.sessions.create_token(caller.holder, label=body.label, role=role, days=body.days)


@router.delete("/v1/tokens/{token}", status_code=204)
def revoke_token(token: str, parts: Parts, caller: Calling) -> None:
    """Put one of the caller's tokens out of use."""
    parts.sessions.revoke_token(caller.name, token)


def _operator(callers: Callers, parts: Services, token: str, address: str) -> str:
    parts.people.throttle.attempt(OPERATOR, address)
    if not callers.is_operator_token(token):
        raise RefusedError("this is not the operator's token")
    parts.people.throttle.succeeded(OPERATOR, address)
    return operator_mark(token)


def _signed_in(parts: Services, name: str, wanted: str) -> Response:
    answer = RedirectResponse(local_path(wanted), status_code=303)
    _give_session(answer, parts, name)
    return answer


def _give_session(answer: Response, parts: Services, name: str) -> None:
    answer.set_cookie(
        COOKIE,
        parts.sessions.start(name),
        max_age=SESSION_S,
        httponly=True,
        samesite="lax",
        secure=_is_secure(parts),
    )


def _is_secure(parts: Services) -> bool:
    server = parts.config.server
    return parts.config.console_tls if not server.public_url else server.public_url.startswith("https:")


def _account(caller: Caller) -> str:
    if not caller.has_account:
        raise ConflictError("this is for people with an account", hint="make one: `lineside-cloud people add NAME`")
    return caller.name


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
