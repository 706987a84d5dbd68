"""Who a request comes from: a person with a session or a token, the operator's token, or whoever sits at the machine.

Rules:
- As long as nobody has an account, no operator's token is set, and only this machine reaches us, whoever calls is its
  keeper and may do everything; the name that they give themselves (`Lineside-Who`) is believed then, and only then.
- A bearer token that is wrong is refused, whatever else the request shows.
"""

import hmac
import re
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from cloud.config import CloudConfig, is_loopback
from cloud.errors import UnauthorizedError
from cloud.people import People
from cloud.roles import Role
from cloud.services import Services
from cloud.sessions import OPERATOR, Holder, Sessions

COOKIE = "lineside_session"
Kind = Literal["machine", "operator", "session", "token"]
"""Sits at the machine; showed the operator's token; signed in with a browser; showed a token of their own."""


@dataclass(frozen=True)
class Caller:
    """Who a request comes from."""

    name: str
    """As it stands in the audit log."""
    role: Role
    kind: Kind
    token_id: str | None = None

    def may(self, role: str) -> bool:
        """Return whether the caller may do what asks for this role."""
        return self.role >= Role.named(role)

    @property
    def is_known(self) -> bool:
        """Whether the name is proven, rather than what the caller says."""
        return self.kind != "machine"

    @property
    def has_account(self) -> bool:
        """Whether it is a person with an account, rather than the machine's keeper or the operator's token."""
        return self.is_known and self.name != OPERATOR

    @property
    def holder(self) -> Holder:
        """The caller as the one whose tokens are made and listed."""
        return Holder(self.name, self.role)


class Callers:
    """Tells who a request comes from."""

    def __init__(self, services: Services) -> None:
        self._token = services.config.operator_token()
        self._only_here = self._token is None and only_here(services.config)
        self._people: People = services.people
        self._sessions: Sessions = services.sessions

    @property
    def asks_for_token(self) -> bool:
        """Whether an operator's token is set."""
        return self._token is not None

    def is_open(self) -> bool:
        """Return whether whoever sits at the machine may do everything."""
        return self._only_here and not self._people.exist()

    def identify(self, headers: Headers) -> Caller:
        """Return who it is.

        Raises:
            UnauthorizedError: the request does not show it.
        """
        if self.is_open():
            return Caller(_own_word(headers), Role.ADMIN, "machine")
        shown = bearer(headers)
        if shown:
            return self._of_token(shown)
        cookie = session_secret(headers)
        holder = self._sessions.holder(cookie) if cookie else None
        if holder is not None:
            return Caller(holder.name, holder.role, "session")
        hint = "sign in at /login; for the command line `lineside-cloud login` keeps a token"
        raise UnauthorizedError("this asks you to sign in", hint=hint)

    def is_operator_token(self, shown: str) -> bool:
        """Return whether this is the operator's token, in a time that tells nothing."""
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode())

    def _of_token(self, shown: str) -> Caller:
        if self.is_operator_token(shown):
            return Caller(OPERATOR, Role.ADMIN, "operator")
        holder = self._sessions.token_holder(shown)
        if holder is None:
            raise UnauthorizedError(
                "this token is no good here", hint="it may be over or revoked; `lineside-cloud login` makes another"
            )
        return Caller(holder.name, holder.role, "token", holder.token_id)


def only_here(config: CloudConfig) -> bool:
    """Return whether nobody but this machine reaches us: by our address, and by the one that others are told."""
    public = urlsplit(config.server.public_url).hostname
    return config.is_loopback and (public is None or is_loopback(public))


def bearer(headers: Headers) -> str:
    """Return the token that a request shows, or nothing."""
    scheme, _, shown = headers.get("authorization", "").partition(" ")
    return shown if scheme.lower() == "bearer" else ""


def session_secret(headers: Headers) -> str:
    """Return what the browser keeps, or nothing."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def caller(request: Request) -> Caller:
    """Return who this request comes from, as the middleware found out."""
    found = request.state.caller
    assert isinstance(found, Caller)
    return found


def operator(request: Request) -> str:
    """Return the name under which this request's change is kept in the audit log."""
    return caller(request).name


Calling = Annotated[Caller, Depends(caller)]
"""Type of a route's argument that gets the caller."""
Operator = Annotated[str, Depends(operator)]
"""Type of a route's argument that gets the caller's name."""


def _own_word(headers: Headers) -> str:
    name = headers.get("lineside-who", OPERATOR)
    return name if re.fullmatch(r"[\w.@+ -]{1,64}", name) else OPERATOR
