"""Who may call what: the rule of each route held against who calls, with the checks that browsers need.

Rules:
- Every route has its rule in `cloud.roles`; the application does not start with one that has none. `Open` routes ask
  for nobody, or check the device's token themselves.
- As long as only this machine reaches us, only hosts that we are known by are answered, so that a web page cannot
  reach us by a name of its own.
- A change that comes from a browser must come from our own pages, signing in and out too; one that shows a session's
  cookie must say where it comes from.
- Bodies are bounded before anything reads them.
"""

import re
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.callers import Caller, Callers, bearer
from cloud.config import CloudConfig
from cloud.console.problems import answer
from cloud.errors import CloudError, RefusedError, TooLargeError, UnauthorizedError
from cloud.roles import Role, rule_of, unruled
from cloud.services import Parts, Services

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
BODY_BYTES = 2**20
"""For everything but inputs and bundles: documents of people and devices are kilobytes."""
FORM_BYTES = 8 * 2**20
"""What may surround a bundle: the signed list and the form's own lines."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class AccessMiddleware:
    """Lets a request through to the routes, or answers why not."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._config = services.config
        self._clock = services.clock
        self._callers = Callers(services)
        self._hosts = _own_hosts(services.config)
        self._public = urlsplit(services.config.server.public_url).netloc

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(send)
        headers = Headers(scope=scope)
        try:
            await self._check(scope, headers)
            limit = _body_limit(self._config, scope["path"])
            _check_length(headers.get("content-length", ""), limit)
        except CloudError as error:
            await answer(error, Request(scope), now_ms=self._clock.now_ms())(scope, receive, guarded)
            return
        await self._app(scope, _bounded(receive, limit), guarded)

    async def _check(self, scope: Scope, headers: Headers) -> None:
        method: str = scope["method"]
        rule = rule_of(method, scope["path"])
        caller: Caller | None = None
        if isinstance(rule, Role):
            self._check_host(headers)
            caller = await run_in_threadpool(self._callers.identify, headers)
            scope.setdefault("state", {})["caller"] = caller
            _check_role(caller, rule)
        if method not in SAFE_METHODS:
            self._check_origin(headers)
            if caller is not None and caller.kind == "session" and not _says_whence(headers):
                raise RefusedError("a change by a session must say which page it comes from (Origin)")

    def _check_host(self, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._callers.asks_for_token and _hostname(host) not in self._hosts:
            raise RefusedError(f"host {host!r} is not one of ours", hint="set server.public_url to the name you use")

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        own = {headers.get("host", ""), self._public} - {""}
        if origin is not None and urlsplit(origin).netloc not in own:
            raise RefusedError(f"a page of {origin} may not change anything here")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise RefusedError("a page of another site may not change anything here")


def check_rules(routes: Iterable[object]) -> None:
    """Make sure that every route has a rule.

    Raises:
        ValueError: one has none.
    """
    missing = unruled(routes)
    if missing:
        raise ValueError(f"no rule in cloud.roles for {', '.join(sorted(missing))}")


def device(request: Request, parts: Parts) -> str:
    """Return the device whose token this request shows.

    Raises:
        UnauthorizedError: it shows none, or one that is of no use.
    """
    token = bearer(request.headers)
    name = parts.enrolment.device_of(token) if token else None
    if name is None:
        raise UnauthorizedError("this needs the token of an enrolled device", hint="enrol again if it was revoked")
    return name


Device = Annotated[str, Depends(device)]
"""Type of a route's argument that gets the calling device."""


def _own_hosts(config: CloudConfig) -> set[str]:
    names = {"127.0.0.1", "localhost", "[::1]", config.server.host}
    public = urlsplit(config.server.public_url).hostname
    return names | ({public} if public else set())


def _hostname(host: str) -> str:
    return host if host.startswith("[") and host.endswith("]") else re.sub(r":\d+$", "", host)


def _check_role(caller: Caller, asked: Role) -> None:
    if caller.role < asked:
        admin = f"an admin can change that: `lineside-cloud people role {caller.name} {asked.word}`"
        remade = "a token stays what it was made for: `lineside-cloud login` makes another"
        hint = f"{admin}; {remade}" if caller.kind == "token" else admin
        raise RefusedError(f"this is for the role {asked.word}; {caller.name} is {caller.role.word}", hint=hint)


def _says_whence(headers: Headers) -> bool:
    return "origin" in headers or "sec-fetch-site" in headers


def _body_limit(config: CloudConfig, path: str) -> int:
    if path.startswith("/v1/inputs/"):
        return config.limits.input_bytes
    if path == "/v1/bundles" or (path.startswith("/v1/bundles/") and path.endswith("/file")):
        return config.limits.bundle_bytes + FORM_BYTES
    return BODY_BYTES


def _check_length(stated: str, limit: int) -> None:
    try:
        length = int(stated or "0")
    except ValueError:
        raise TooLargeError("content-length: expected a number") from None
    if length > limit:
        raise TooLargeError(f"expected at most {limit} bytes, got {stated}")


def _bounded(receive: Receive, limit: int) -> Receive:
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise TooLargeError(f"expected at most {limit} bytes, got more")
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return guarded
