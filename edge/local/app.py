"""The HTTP side of the device's own page: state, pictures, answers, `/healthz` and `/metrics`.

Rules:
- Answers nothing to other origins: the Host must be one of this device's, and a change needs a header that a foreign
  page cannot send.
- Beyond loopback a token is asked for, except by `/healthz`, which says nothing but that, and which station it is.
- `/healthz` is 200 only while every station turns and nothing keeps one from deciding or acting as it should.
- Reads the record through connections of its own; the stations never wait for a reader.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from edge.errors import ConfigError, LinesideError
from edge.linkstate import LinkState, read_link
from edge.local.answers import answer, open_parts
from edge.observe import Totals
from edge.store import Store
from edge.values import Window
from edge.wire.messages import Reported
from edge.wire.rows import DecisionRow

LISTED = 50
"""Open parts that the page is given; nobody answers more before looking again."""
COOKIE = "lineside"
CHANGE_HEADER = "x-lineside"
_SECURE = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Device:
    """What the page shows, as callables: each is asked when a request comes."""

    reported: Callable[[Store], Reported]
    open_store: Callable[[], Store]
    boot_id: str
    last: Callable[[str], tuple[Window, DecisionRow | None] | None]
    """Last window of a station with its decision."""
    totals: Callable[[], dict[str, Totals]]
    stuck: Callable[[], list[str]]
    """Stations that do not turn."""
    trouble: Callable[[], list[str]]
    """Stations that something keeps from deciding or acting as they should."""
    words: Callable[[], dict[str, list[str]]] = dict
    """Of the stations that hear: the labels that a person may name."""
    alone: bool = False
    """Whether there is no control plane that rows could wait for."""
    token: str | None = None
    hosts: list[str] = field(default_factory=lambda: ["127.0.0.1", "localhost", "[::1]"])


def make_app(device: Device) -> Starlette:
    """Return the ASGI application."""
    page = _Page(device)
    routes = [
        Route("/", page.index),
        Route("/favicon.ico", page.nothing),
        Route("/page.js", page.script),
        Route("/page.css", page.style),
        Route("/healthz", page.healthz),
        Route("/metrics", page.metrics),
        Route("/api/state", page.state),
        Route("/api/live/{station}", page.live),
        Route("/api/inputs/{seq:int}", page.kept),
        Route("/api/answers", page.answer, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={LinesideError: _told})
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=device.hosts)
    return app


class _Page:
    """The routes."""

    def __init__(self, device: Device) -> None:
        self._d = device

    async def index(self, request: Request) -> Response:
        if request.query_params.get("token") and self._may(request):
            response = Response(status_code=303, headers={"location": "/"})
            response.set_cookie(COOKIE, request.query_params["token"], httponly=True, samesite="strict")
            return response
        if not self._may(request):
            return PlainTextResponse("open this page as /?token=…, with the token of the device's config\n", 401)
        return HTMLResponse(_static("page.html"), headers=_SECURE)

    async def nothing(self, _request: Request) -> Response:
        return Response(status_code=204)  # every browser asks for an icon

    async def script(self, _request: Request) -> Response:
        return Response(_static("page.js"), media_type="text/javascript", headers=_SECURE)

    async def style(self, _request: Request) -> Response:
        return Response(_static("page.css"), media_type="text/css", headers=_SECURE)

    async def healthz(self, _request: Request) -> Response:
        stuck, trouble = self._d.stuck(), self._d.trouble()
        ok = not stuck and not trouble
        return JSONResponse({"ok": ok, "stuck": stuck, "trouble": trouble}, 200 if ok else 503)

    async def metrics(self, request: Request) -> Response:
        if not self._may(request):
            return _denied()
        text = await run_in_threadpool(self._exposition)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def _exposition(self) -> bytes:
        from edge.local.metrics import exposition

        with self._d.open_store() as store:
            reported, link = self._d.reported(store), self._link(store)
        connected = None if self._d.alone else bool(link and link.connected)
        return exposition(reported, self._d.totals(), self._d.stuck(), connected=connected)

    def _link(self, store: Store) -> LinkState | None:
        return None if self._d.alone else read_link(store)

    async def state(self, request: Request) -> Response:
        return await self._guarded(request, self._state)

    async def live(self, request: Request) -> Response:
        return await self._guarded(request, lambda: self._live(request.path_params["station"]))

    async def kept(self, request: Request) -> Response:
        return await self._guarded(request, lambda: self._kept(request.path_params["seq"]))

    async def answer(self, request: Request) -> Response:
        if request.headers.get(CHANGE_HEADER) is None:
            return JSONResponse({"error": f"expected the header {CHANGE_HEADER}, got none"}, 403)
        given = await _document(request)
        return await self._guarded(request, lambda: self._answer(given))

    async def _guarded(self, request: Request, work: Callable[[], Response]) -> Response:
        if not self._may(request):
            return _denied()
        return await run_in_threadpool(work)

    def _may(self, request: Request) -> bool:
        if self._d.token is None:
            return True
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        shown = (bearer, request.cookies.get(COOKIE, ""), request.query_params.get("token", ""))
        return any(hmac.compare_digest(word.encode(), self._d.token.encode()) for word in shown)

    def _state(self) -> Response:
        with self._d.open_store() as store:
            waiting = open_parts(store)
            reported, link = self._d.reported(store), self._link(store)
        lasts = {name: self._d.last(name) for name in reported.stations}
        decided = {name: last[1].model_dump(mode="json") if last and last[1] else None for name, last in lasts.items()}
        document = {
            "reported": reported.model_dump(mode="json"),
            "last": decided,
            "seen": [name for name, last in lasts.items() if last and _can_be_shown(last[0])],
            "open": [row.model_dump(mode="json") for row in waiting.parts[:LISTED]],
            "open_count": waiting.count,
            "words": self._d.words(),
            "alone": self._d.alone,
            "link": link.model_dump() if link else None,
        }
        return JSONResponse(document, headers=_SECURE)

    def _live(self, station: str) -> Response:
        last = self._d.last(station)
        if last is None or not _can_be_shown(last[0]):
            return JSONResponse({"error": f"no picture of {station} yet"}, 404)
        return _as_shown(last[0])

    def _kept(self, seq: int) -> Response:
        with self._d.open_store() as store:
            decision = store.decision(seq)
            found = store.inputs.get(decision.input.digest) if decision else None
        if found is None:
            return JSONResponse({"error": f"the input of decision {seq} is not kept"}, 404)
        return Response(found[0], media_type=found[1], headers=_SECURE)

    def _answer(self, given: dict[str, Any]) -> Response:
        seq = given.get("seq")
        if not isinstance(seq, int):
            raise ConfigError(f"seq: expected the number of a decision, got {seq!r}")
        words, label = self._d.words(), given.get("label")
        with self._d.open_store() as store:
            row = answer(
                store,
                seq,
                str(given.get("answer")),
                str(given.get("who") or ""),
                boot_id=self._d.boot_id,
                label=None if label is None else str(label),
                known=lambda station: words.get(station, []),
            )
        return JSONResponse({"event": row.seq}, 201)


async def _document(request: Request) -> dict[str, Any]:
    try:
        found = await request.json()
    except ValueError as error:
        raise ConfigError(f"body: expected JSON, got {error}") from error
    if not isinstance(found, dict):
        raise ConfigError("body: expected a JSON object with seq, answer and who")
    return found


def _can_be_shown(window: Window) -> bool:
    """Return whether there is something to see or hear: also of a camera that is black, not of a file that is none."""
    return window.data is not None or (window.raw is None and window.encode is not None)


def _as_shown(window: Window) -> Response:
    if window.raw is not None:
        return Response(window.raw, media_type=window.media_type, headers=_SECURE)
    if window.encode is not None:
        return Response(window.encode(), media_type=window.media_type, headers=_SECURE)
    from edge.imaging import encode_png

    assert window.data is not None
    return Response(encode_png(window.data), media_type="image/png", headers=_SECURE)


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LinesideError)
    return JSONResponse({"error": str(error), "hint": error.hint}, 422)


def _denied() -> Response:
    return JSONResponse({"error": "expected the device's token, got none or another"}, 401)


def _static(name: str) -> str:
    return (resources.files("edge.local") / "static" / name).read_text()
