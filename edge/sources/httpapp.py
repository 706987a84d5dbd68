"""What the prediction server answers: one input, a batch, its health, and its OpenAPI document.

Rules:
- Sizes, times and numbers are bounded before anything is decoded; every refusal says what was expected.
- A page of another site cannot send in the name of whoever looks at it: without a token it answers only to its own
  names (so that a foreign name which points here is no way in) and to no foreign `Origin`.
- A picture that cannot be judged is an answer like any other: 200, verdict `defer`, reason `bad_input`, on record.
- An answer is the recorded decision. Where a mask or a crop made something else of what was sent, it names the digest
  of what was sent besides (`received`), so that the sender knows his own.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge.sources.inbox import Busy, Inbox, Item, Stopping, TooMuch
from edge.sources.openapi import BATCH, DECIDE, HEALTH, OPENAPI, RECEIVED, document
from edge.wire.rows import DecisionRow

if TYPE_CHECKING:
    from edge.clock import Clock
    from edge.sources.settings import HttpSettings

MAX_NAME = 200
STUCK_S = 5.0
"""A pipeline that asked for nothing for so long is not ready."""
_OWN_NAMES = ("127.0.0.1", "localhost")
_BATCH_OVERHEAD_BYTES = 64 * 1024
_SOON, _LATER = {"Retry-After": "1"}, {"Retry-After": "5"}
"""For who found no room, and for who came while the device stops or has no room on its disk."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """A request that is not taken, with its status."""

    def __init__(self, status: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


@dataclass
class Expired:
    """How many inputs were given up because their decision took too long."""

    count: int = 0


@dataclass(frozen=True)
class Upload:
    """One input as it came."""

    raw: bytes
    name: str
    media_type: str


Handler = Callable[[Request], Awaitable[Response]]


def make_app(settings: "HttpSettings", inbox: Inbox, expired: Expired, clock: "Clock", opening: str) -> Starlette:
    """Return the server's application.

    Args:
        settings: bounds and token.
        inbox: where inputs wait for the pipeline.
        expired: counts what was given up.
        clock: time, for its health.
        opening: makes the keys of this start's inputs different from those of all others.
    """
    desk = _Desk(settings, inbox, expired, clock, opening)
    return Starlette(
        routes=[
            Route(DECIDE, _guarded(desk.decide), methods=["POST"]),
            Route(BATCH, _guarded(desk.batch), methods=["POST"]),
            Route(HEALTH, desk.health, methods=["GET"]),
            Route(OPENAPI, desk.openapi, methods=["GET"]),
        ]
    )


class _Desk:
    """Takes requests in and sends decisions out."""

    def __init__(self, settings: "HttpSettings", inbox: Inbox, expired: Expired, clock: "Clock", opening: str) -> None:
        self._settings, self._inbox, self._expired, self._clock = settings, inbox, expired, clock
        self._opening = opening
        self._numbers = itertools.count(1)
        self._arriving_bytes = 0

    async def decide(self, request: Request) -> Response:
        """One picture or sound as the body."""
        self._admit(request)
        raw = await self._body(request, self._settings.max_bytes)
        name = request.query_params.get("name") or request.headers.get("x-name") or ""
        media_type = request.headers.get("content-type", "").partition(";")[0].strip()
        upload = Upload(raw, name, media_type)
        (answer,) = await self._decided([upload])
        if isinstance(answer, str):
            raise Refusal(503, answer, _LATER)
        return Response(_as_json(answer, upload), media_type="application/json")

    async def batch(self, request: Request) -> Response:
        """Several as the files of a form."""
        self._admit(request)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refusal(415, "expected multipart/form-data with one file per input")
        uploads = await self._files(request)
        answers = await self._decided(uploads)
        items = [
            json.dumps({"error": answer}) if isinstance(answer, str) else _as_json(answer, upload)
            for answer, upload in zip(answers, uploads, strict=True)
        ]
        return Response(f'{{"decisions":[{",".join(items)}]}}', media_type="application/json")

    async def health(self, _request: Request) -> Response:
        """Whether inputs are being decided."""
        silent_s = self._clock.monotonic_s() - self._inbox.asked_s
        ready = not self._inbox.draining and silent_s < STUCK_S
        state = {"ready": ready, "waiting": self._inbox.waiting, "stopping": self._inbox.draining}
        return JSONResponse(state, 200 if ready else 503)

    async def openapi(self, _request: Request) -> Response:
        """What this server takes and gives."""
        return JSONResponse(document(self._settings))

    def _admit(self, request: Request) -> None:
        token = self._settings.token
        if token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                raise Refusal(401, "expected Authorization: Bearer with the token", {"WWW-Authenticate": "Bearer"})
            return
        if request.url.hostname not in _OWN_NAMES:
            raise Refusal(403, f"without a token expected one of {', '.join(_OWN_NAMES)}, got {request.url.hostname}")
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise Refusal(403, f"requests from pages of {origin} need a token")

    async def _body(self, request: Request, limit: int) -> bytes:
        """Return the whole body, if it is neither too large nor too slow."""
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said) > limit:
            raise Refusal(413, f"expected at most {limit:,} bytes, got {int(said):,}", {"Connection": "close"})
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.upload_s):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    self._arriving_bytes += len(part)
                    if size > limit:
                        raise Refusal(413, f"expected at most {limit:,} bytes", {"Connection": "close"})
                    self._make_sure_of_room()
        except TimeoutError as error:
            why = f"the request took longer than {self._settings.upload_s:g} s to arrive"
            raise Refusal(408, why, {"Connection": "close"}) from error
        finally:
            self._arriving_bytes -= size
        return b"".join(parts)

    def _make_sure_of_room(self) -> None:
        """Refuse what many senders together would fill the memory with."""
        most = self._settings.max_waiting_bytes + _BATCH_OVERHEAD_BYTES
        if self._arriving_bytes > most:
            self._inbox.refuse()
            raise Refusal(429, f"busy: more than {most:,} bytes arrive at once", {**_SOON, "Connection": "close"})

    async def _files(self, request: Request) -> list[Upload]:
        most, each = self._settings.max_batch, self._settings.max_bytes
        total = min(self._settings.max_waiting_bytes, most * each) + _BATCH_OVERHEAD_BYTES
        raw = await self._body(request, total)
        parser = MultiPartParser(request.headers, _stream(raw), max_files=most, max_fields=most, max_part_size=each)
        parser.spool_max_size = total  # in memory, which is bounded here, never on the device's disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError) as error:
            raise Refusal(400, f"the form cannot be read: {getattr(error, 'message', error)}") from error
        try:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            uploads = [Upload(await file.read(), file.filename or "", file.content_type or "") for file in files]
        finally:
            await form.close()
        if not uploads:
            raise Refusal(400, f"expected 1 to {most} files in the form, got none")
        too_large = next((upload for upload in uploads if len(upload.raw) > each), None)
        if too_large is not None:
            raise Refusal(413, f"{too_large.name}: expected at most {each:,} bytes, got {len(too_large.raw):,}")
        return uploads

    async def _decided(self, uploads: list[Upload]) -> list[DecisionRow | str]:
        """Return each input's decision, or why there is none."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[DecisionRow | str]] = [loop.create_future() for _ in uploads]
        items = [self._item(upload, loop, future) for upload, future in zip(uploads, futures, strict=True)]
        try:
            self._inbox.put(items)
        except TooMuch as much:
            raise Refusal(413, str(much)) from much
        except Busy as busy:
            raise Refusal(429, str(busy), {"Retry-After": str(busy.retry_after_s)}) from busy
        except Stopping as stopping:
            raise Refusal(503, "the device is stopping", {**_LATER, "Connection": "close"}) from stopping
        try:
            async with asyncio.timeout(self._settings.answer_s):
                return await asyncio.gather(*futures)
        except TimeoutError as error:
            late = sum(not future.done() or future.cancelled() for future in futures)
            self._expired.count += late
            raise Refusal(504, f"no decision within {self._settings.answer_s:g} s") from error
        finally:
            for item in items:
                item.given_up = True

    def _item(
        self, upload: Upload, loop: asyncio.AbstractEventLoop, future: "asyncio.Future[DecisionRow | str]"
    ) -> Item:
        number = next(self._numbers)

        def set_result(result: DecisionRow | str) -> None:
            if not future.done():
                future.set_result(result)

        def settle(decision: DecisionRow | None, why: str) -> None:
            try:
                loop.call_soon_threadsafe(set_result, why if decision is None else decision)
            except RuntimeError:
                return  # the server has ended: nobody is there to hear it

        name = "".join(letter for letter in upload.name if letter.isprintable())[:MAX_NAME]
        return Item(
            raw=upload.raw,
            name=name or f"request {number}",
            key=f"{self._opening}-{number}",
            media_type=upload.media_type or "application/octet-stream",
            settle=settle,
        )


def _as_json(decision: DecisionRow, upload: Upload) -> str:
    received = hashlib.sha256(upload.raw).hexdigest()
    if received != decision.input.digest:
        decision = decision.model_copy(update={RECEIVED: received})
    return decision.model_dump_json()


def _guarded(handler: Handler) -> Handler:
    """Return the handler with its refusals as answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody hears it

    return answer


async def _stream(raw: bytes) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(raw), 2**20):
        yield raw[at : at + 2**20]
    yield b""
