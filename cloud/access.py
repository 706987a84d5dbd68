"""Who may call what: operators, devices and everybody, with the checks that browsers need.

Rules:
- Paths of `PUBLIC` are open (enrolment proves itself, bundles are signed), those of `DEVICE` check the device's
  token in their route, everything else is the operator's.
- On a loopback address the operator is whoever sits at the machine; on any other, a token is asked for.
- Without a token only hosts that we are known by are answered, so that a web page cannot reach us by a name of
  its own; a change from a browser must come from our own pages.
- Bodies are bounded before anything reads them.
"""

import hmac
import json
import re
from hashlib import sha256
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.config import CloudConfig
from cloud.errors import CloudError, RefusedError, TooLargeError, UnauthorizedError
from cloud.services import Parts, Services

PUBLIC = ("/v1/enrol", "/tuf/", "/healthz", "/login", "/static/", "/favicon.ico")
COOKIE = "lineside_operator"
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
        self._token = services.config.operator_token()
        self._hosts = _own_hosts(services.config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(send)
        headers = Headers(scope=scope)
        try:
            self._check(scope["path"], scope["method"], headers)
            limit = _body_limit(self._config, scope["path"])
            if int(headers.get("content-length", "0") or "0") > limit:
                raise TooLargeError(f"expected at most {limit} bytes, got {headers['content-length']}")
        except CloudError as error:
            await _answer(error, headers, guarded)
            return
        except ValueError:
            await _answer(TooLargeError("content-length: expected a number"), headers, guarded)
            return
        await self._app(scope, _bounded(receive, limit), guarded)

    def _check(self, path: str, method: str, headers: Headers) -> None:
        if path.startswith(PUBLIC):
            return
        if path.startswith("/v1/inputs/") and method == "PUT":
            return  # the route asks for the device's own token
        if self._token is not None:
            self._check_token(headers)
        elif _hostname(headers.get("host", "")) not in self._hosts:
            raise RefusedError(
                f"host {headers.get('host', '')!r} is not one of ours", hint="set server.public_url to the name you use"
            )
        if method not in SAFE_METHODS:
            _check_origin(headers)

    def _check_token(self, headers: Headers) -> None:
        assert self._token is not None
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(shown.encode(), self._token.encode()):
            return
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if hmac.compare_digest(cookie.encode(), cookie_value(self._token).encode()):
            return
        raise UnauthorizedError(
            "this needs the operator's token", hint="send it as a bearer token, or sign in at /login"
        )


def cookie_value(token: str) -> str:
    """Return what the browser keeps instead of the token itself."""
    return hmac.new(token.encode(), b"lineside-operator-cookie-1", sha256).hexdigest()


def operator(request: Request) -> str:
    """Return the name under which this request's change is kept in the audit log."""
    name = request.headers.get("lineside-who", "operator")
    return name if re.fullmatch(r"[\w.@+ -]{1,64}", name) else "operator"


Operator = Annotated[str, Depends(operator)]
"""Type of a route's argument that gets the operator's name."""


def device(request: Request, parts: Parts) -> str:
    """Return the device whose token this request shows.

    Raises:
        UnauthorizedError: it shows none, or one that is of no use.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    name = parts.enrolment.device_of(token) if scheme.lower() == "bearer" and token else None
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


def _check_origin(headers: Headers) -> None:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers.get("host", ""):
        raise RefusedError(f"a page of {origin} may not change anything here")
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RefusedError("a page of another site may not change anything here")


def _body_limit(config: CloudConfig, path: str) -> int:
    if path.startswith("/v1/inputs/"):
        return config.limits.input_bytes
    if path == "/v1/bundles":
        return config.limits.bundle_bytes + FORM_BYTES
    return BODY_BYTES


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


async def _answer(error: CloudError, headers: Headers, send: Send) -> None:
    wants_page = error.status == 401 and "text/html" in headers.get("accept", "")
    status = 303 if wants_page else error.status
    body = json.dumps({"error": str(error), "hint": error.hint}).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if wants_page:
        fields.append((b"location", b"/login"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
