"""Kept inputs on their way over HTTP to a control plane that is busy, refuses, or is not there."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge import uploads
from edge.clock import SystemClock
from edge.retention import StoreLimits
from edge.store import Store
from edge.uploads import UploadTimes
from edge.wire.rows import EventRow
from tests.badlink import BadLink
from tests.rows import decision
from tests.waiting import until
from tests.webserver import Request, WebServer

pytestmark = pytest.mark.anyio

TIMES = UploadTimes(poll_s=0.02, backoff_min_s=0.02, backoff_max_s=0.1)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        made.behaviour.answer = lambda request: (201, b"")
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    limits = StoreLimits(upload_refusals=3)
    with Store.open(tmp_path / "record.db", clock=SystemClock(), durability="process", limits=limits) as made:
        yield made


@asynccontextmanager
async def sending(store: Store, url: str, agreed: set[str] | None = None) -> AsyncIterator[None]:
    now = set() if agreed is None else agreed
    sends = uploads.run(
        store, cloud_url=url, token="secret", boot_id="boot", agreed=lambda: frozenset(now), times=TIMES
    )
    task = asyncio.create_task(sends)
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def keep(store: Store, raw: bytes) -> str:
    store.append_decision(decision(raw=raw), input_key=None, keep=(raw, "image/png"))
    return hashlib.sha256(raw).hexdigest()


async def test_kept_input_arrives_under_its_digest_with_token_and_type(store: Store, server: WebServer) -> None:
    raw = random.randbytes(300_000)
    digest = keep(store, raw)
    async with sending(store, server.url + "/"):
        await until(lambda: store.inputs.waiting() == 0, 10, "the upload")
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("PUT", f"/v1/inputs/{digest}", raw)
    assert request.headers["Authorization"] == "Bearer secret"
    assert request.headers["Content-Type"] == "image/png"
    assert store.inputs.get(digest) is not None


def hear(store: Store, raw: bytes, station: str) -> str:
    row = decision(raw=raw, station=station)
    store.append_decision(row, input_key=None, keep=(raw, "audio/wav"))
    return row.input.digest


async def test_sound_is_sent_only_while_its_station_has_consent(store: Store, server: WebServer) -> None:
    agreed = {"hall"}
    first, held = hear(store, b"in the hall", "hall"), hear(store, b"in the yard", "yard")
    async with sending(store, server.url, agreed):
        await until(lambda: store.inputs.waiting() == 0, 10, "what may be sent")
        assert [request.path for request in server.requests] == [f"/v1/inputs/{first}"]
        agreed.clear()
        later = hear(store, b"in the hall, later", "hall")
        store.inputs.want([held, later])
        picture = keep(store, b"a picture needs no consent")
        await until(lambda: len(server.requests) == 2, 10, "the picture")
        assert server.requests[1].path == f"/v1/inputs/{picture}"
        agreed.update({"hall", "yard"})
        await until(lambda: len(server.requests) == 4, 10, "the sound, with consent")
    assert {request.path for request in server.requests[2:]} == {f"/v1/inputs/{held}", f"/v1/inputs/{later}"}
    assert store.inputs.waiting() == 0


async def test_sound_that_two_stations_keep_goes_if_one_of_them_may_send_it(store: Store, server: WebServer) -> None:
    digest = hear(store, b"the same", "yard")
    hear(store, b"the same", "hall")
    async with sending(store, server.url, {"hall"}):
        await until(lambda: len(server.requests) == 1, 10, "the sound")
    assert server.requests[0].path == f"/v1/inputs/{digest}"


async def test_oldest_goes_first(store: Store, server: WebServer) -> None:
    digests = [keep(store, bytes([number])) for number in range(5)]
    async with sending(store, server.url):
        await until(lambda: store.inputs.waiting() == 0, 10, "the uploads")
    assert [request.path for request in server.requests] == [f"/v1/inputs/{digest}" for digest in digests]


@pytest.mark.parametrize("status", [401, 408, 429, 500, 503])
async def test_busy_control_plane_is_asked_again_without_end(store: Store, server: WebServer, status: int) -> None:
    keep(store, b"x")
    server.behaviour.status = [status] * 6
    async with sending(store, server.url):
        await until(lambda: store.inputs.waiting() == 0, 10, "the upload")
    assert len(server.requests) == 7
    assert not store.rows(kind="event")


async def test_refused_input_is_put_aside_with_an_event_and_the_others_go(store: Store, server: WebServer) -> None:
    bad, good = keep(store, b"bad"), keep(store, b"good")

    def answer(request: Request) -> tuple[int, bytes]:
        return (415, b"not a picture") if request.body == b"bad" else (200, b"")

    server.behaviour.answer = answer
    async with sending(store, server.url):
        await until(lambda: store.inputs.waiting() == 0, 10, "both to be settled")
        await asyncio.sleep(0.1)
    assert sum(request.path.endswith(bad) for request in server.requests) == 3
    assert sum(request.path.endswith(good) for request in server.requests) == 1
    (event,) = store.rows(kind="event")
    assert isinstance(event, EventRow)
    assert (event.name, event.data) == ("upload_put_aside", {"digest": bad})
    assert "not a picture" in event.detail


async def test_input_that_breaks_the_control_plane_holds_up_no_other(store: Store, server: WebServer) -> None:
    keep(store, b"poison")
    for number in range(5):
        keep(store, bytes([number]))
    server.behaviour.answer = lambda request: (500, b"") if request.body == b"poison" else (201, b"")
    async with sending(store, server.url):
        await until(lambda: store.inputs.waiting() == 1, 10, "the others")
        server.behaviour.answer = lambda request: (201, b"")
        await until(lambda: store.inputs.waiting() == 0, 10, "the one")


async def test_redirect_is_not_followed_with_the_token(store: Store, server: WebServer) -> None:
    keep(store, b"x")
    with WebServer() as other:
        server.behaviour.answer = lambda request: (302, b"")
        async with sending(store, server.url):
            await until(lambda: store.inputs.waiting() == 0, 10, "it to be put aside")
        assert not other.requests


async def test_nobody_there_then_there_sends_everything(store: Store, server: WebServer) -> None:
    for number in range(3):
        keep(store, bytes([number]) * 50_000)
    with BadLink(server.port) as bad:
        bad.refuse = True
        async with sending(store, f"http://127.0.0.1:{bad.port}"):
            await until(lambda: bad.connections >= 3, 10, "three tries")
            assert store.inputs.waiting() == 3
            bad.refuse = False
            await until(lambda: store.inputs.waiting() == 0, 10, "the uploads")


async def test_line_cut_in_the_middle_sends_again(store: Store, server: WebServer) -> None:
    digest = keep(store, random.randbytes(2_000_000))
    with BadLink(server.port) as bad:
        bad.bytes_per_s = 5e6
        async with sending(store, f"http://127.0.0.1:{bad.port}"):
            await until(lambda: bad.bytes_to_target > 200_000, 10, "a part")
            bad.cut()
            bad.bytes_per_s = None
            await until(lambda: store.inputs.waiting() == 0, 20, "the upload")
    assert hashlib.sha256(server.requests[-1].body).hexdigest() == digest
