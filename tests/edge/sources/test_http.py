"""The prediction server: over a real socket, with a real pipeline behind it where decisions matter."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from edge.clock import SystemClock
from edge.errors import ConfigError, SourceError
from edge.observe import Observer
from edge.pipeline import Parts, Pipeline
from edge.sources import open_source
from edge.sources.http import HttpSource
from edge.store import Store
from edge.values import StationSettings, Window
from tests.edge.test_imaging import encoded
from tests.edge.test_serving import Bench
from tests.edge.test_sound import pcm
from tests.seams.fakes import RecordingActuator
from tests.waiting import wait_until

TOKEN = "a-token-of-the-plant-network"
BRIGHT = encoded("PNG", np.full((32, 32, 3), 250, np.uint8))
DARK = encoded("PNG", np.full((32, 32, 3), 5, np.uint8))


@pytest.fixture
def opened() -> Iterator[Callable[..., HttpSource]]:
    """Opens servers that are closed at the end of the test."""
    sources: list[HttpSource] = []

    def open_one(**settings: Any) -> HttpSource:
        source = open_source("http", {"port": 0, **settings}, seen=lambda _key: False, clock=SystemClock())
        assert isinstance(source, HttpSource)
        sources.append(source)
        return source

    yield open_one
    for source in sources:
        source.close()


class Station:
    """A pipeline in a thread that decides on what is sent to its source."""

    def __init__(self, folder: Path, source: HttpSource) -> None:
        self.bench = Bench(folder)
        self.bench.begin()
        self.store = Store.open(folder / "lineside.sqlite", clock=self.bench.clock, durability="process")
        self.source, self.actuator = source, RecordingActuator()
        observer = Observer("main", "brightness", self.store, self.bench.clock, "boot", 60.0)
        settings = StationSettings(station="main", deadline_ms=60_000)
        self.pipeline = Pipeline(
            Parts(
                source=source,
                serving=self.bench.serving,
                actuator=self.actuator,
                store=self.store,
                observer=observer,
                settings=lambda: settings,
                clock=SystemClock(),
                boot_id="boot",
            )
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.pipeline.run(self.stop)
        self.source.drain()
        self.pipeline.run_out(5.0, threading.Event())

    def __enter__(self) -> "Station":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.bench.serving.close()
        self.store.close()

    def end(self) -> None:
        self.stop.set()
        self.thread.join(10)


def url(source: HttpSource, path: str = "/v1/decide") -> str:
    return f"http://127.0.0.1:{source.port}{path}"


def in_background(send: Callable[[], httpx.Response]) -> tuple[threading.Thread, list[httpx.Response]]:
    """Send a request in a thread; the answer appears in the list."""
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(send()), daemon=True)
    thread.start()
    return thread, answers


def test_picture_is_answered_by_its_decision_which_is_on_record(
    tmp_path: Path, opened: Callable[..., HttpSource]
) -> None:
    source = opened()
    with Station(tmp_path, source) as station:
        answer = httpx.post(url(source), params={"name": "SN-1"}, content=BRIGHT, headers={"Content-Type": "image/png"})
        dark = httpx.post(url(source), content=DARK)
        station.end()
        assert (answer.status_code, answer.json()["verdict"], dark.json()["verdict"]) == (200, "pass", "divert")
        recorded = station.store.decision(answer.json()["seq"])
        assert recorded is not None and recorded.model_dump() == answer.json()
        assert recorded.input.name == "SN-1" and recorded.input.source == "http"
        assert [decision.verdict for decision in station.actuator.acted] == ["pass", "divert"]
        assert "wait" in recorded.latency_ms


def test_what_cannot_be_judged_is_an_answer_with_its_reason(tmp_path: Path, opened: Callable[..., HttpSource]) -> None:
    source = opened()
    with Station(tmp_path, source):
        answer = httpx.post(url(source), content=b"no picture at all")
        empty = httpx.post(url(source), content=b"")
    assert (answer.status_code, answer.json()["reason"]) == (200, "bad_input")
    assert "not a picture" in answer.json()["detail"]
    assert (empty.status_code, empty.json()["reason"]) == (200, "bad_input")


def test_batch_is_answered_in_its_order(tmp_path: Path, opened: Callable[..., HttpSource]) -> None:
    source = opened()
    files = [("file", (name, raw, "image/png")) for name, raw in (("a", BRIGHT), ("b", DARK), ("c", b"x"))]
    with Station(tmp_path, source):
        answer = httpx.post(url(source, "/v1/batch"), files=files)
    assert answer.status_code == 200
    decisions = answer.json()["decisions"]
    assert [(d["input"]["name"], d["verdict"]) for d in decisions] == [("a", "pass"), ("b", "divert"), ("c", "defer")]


def test_many_senders_at_once_each_get_their_own_decision(tmp_path: Path, opened: Callable[..., HttpSource]) -> None:
    source = opened()
    got: dict[int, httpx.Response] = {}

    def send(number: int) -> None:
        raw = BRIGHT if number % 2 else DARK
        got[number] = httpx.post(url(source), params={"name": f"part {number}"}, content=raw)

    with Station(tmp_path, source):
        threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len({answer.json()["seq"] for answer in got.values()}) == 20
    for number, answer in got.items():
        assert answer.json()["input"]["name"] == f"part {number}"
        assert answer.json()["verdict"] == ("pass" if number % 2 else "divert")


def test_what_was_taken_in_is_decided_and_answered_when_the_station_stops(
    tmp_path: Path, opened: Callable[..., HttpSource]
) -> None:
    source = opened()
    sent = [in_background(lambda: httpx.post(url(source), content=BRIGHT)) for _ in range(5)]
    wait_until(lambda: source._inbox.waiting == 5, 10, "five requests")
    station = Station(tmp_path, source)
    station.stop.set()
    with station:
        station.thread.join(10)
        refused = httpx.post(url(source), content=BRIGHT)
        source.close()
    for thread, _ in sent:
        thread.join(10)
    assert [answer.json()["verdict"] for _, (answer,) in sent] == ["pass"] * 5
    assert refused.status_code == 503 and "stopping" in refused.json()["error"]


def test_busy_server_says_when_to_come_again(opened: Callable[..., HttpSource]) -> None:
    source = opened(max_waiting=2, answer_s=1)
    sent = [in_background(lambda: httpx.post(url(source), content=BRIGHT)) for _ in range(2)]
    wait_until(lambda: source._inbox.waiting == 2, 10, "two requests")
    busy = httpx.post(url(source), content=BRIGHT)
    assert busy.status_code == 429 and int(busy.headers["Retry-After"]) >= 1
    for thread, _ in sent:
        thread.join(10)
    assert [answer.status_code for _, (answer,) in sent] == [504, 504]
    assert source.read(0) is None, "who has given up is not decided any more"
    (news,) = source.news()
    assert news.data == {"busy": 1, "late": 2}


def test_more_connections_than_it_is_meant_for_are_refused_in_words_and_counted(
    opened: Callable[..., HttpSource],
) -> None:
    source = opened(max_connections=3)
    held = [_connected(source) for _ in range(3)]
    wait_until(lambda: len(_connections(source)) == 3, 10, "the connections")
    refused = httpx.post(url(source), content=BRIGHT)
    assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
    assert "4 connections, expected at most 3" in refused.json()["error"]
    held.pop().close()
    wait_until(lambda: len(_connections(source)) == 2, 10, "one to be gone")
    assert httpx.get(url(source, "/openapi.json")).status_code == 200
    assert source.news()[0].data["busy"] == 1
    for connection in held:
        connection.close()


def test_flood_of_connections_is_closed_as_it_comes(opened: Callable[..., HttpSource]) -> None:
    source = opened(max_connections=2)
    held = [_connected(source) for _ in range(4)]
    wait_until(lambda: len(_connections(source)) == 4, 10, "the connections")
    with _connected(source) as one_more:
        assert one_more.recv(1) == b""
    for connection in held:
        connection.close()


@pytest.mark.parametrize("said", [b"", b"POST /v1/decide HTTP/1.1\r\nHost:"], ids=["nothing", "half a head"])
def test_connection_that_never_asks_is_closed(
    opened: Callable[..., HttpSource], monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("edge.httpserver.HEAD_S", 0.2)
    source = opened()
    with _connected(source) as connection:
        connection.sendall(said)
        assert connection.recv(1) == b""
    wait_until(lambda: not _connections(source), 10, "it to be gone")


def test_kept_connection_that_dawdles_at_its_second_question_is_closed_and_not_before(
    opened: Callable[..., HttpSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.httpserver.HEAD_S", 0.3)
    source = opened()
    with _connected(source) as connection:
        for _ in range(2):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = connection.recv(100)
            assert answer.startswith(b"HTTP/1.1 200")
            while b"operationId" not in answer or not answer.endswith(b"}"):
                answer += connection.recv(65536)
        connection.sendall(b"GET /openapi")
        assert connection.recv(1) == b""


def test_what_many_send_at_once_is_bounded(opened: Callable[..., HttpSource]) -> None:
    source = opened(max_bytes=100_000, max_waiting_bytes=100_000)
    head = b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
    first, second = _connected(source), _connected(source)
    for half in (first, second):
        half.sendall(head + bytes(95_000))
    readable, _, _ = select.select([first, second], [], [], 10)
    answer = readable[0].recv(1000)
    assert answer.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in answer.lower()
    assert len(readable) == 1, "there is room for one of them"
    first.close()
    second.close()


def test_batch_is_taken_whole_or_not_at_all(opened: Callable[..., HttpSource]) -> None:
    source = opened(max_waiting=2)
    answer = httpx.post(url(source, "/v1/batch"), files=[("file", ("a", BRIGHT))] * 3)
    assert answer.status_code == 413 and source.read(0) is None, "there will never be room"


def test_closing_answers_whoever_waits(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    thread, answers = in_background(lambda: httpx.post(url(source), content=BRIGHT))
    wait_until(lambda: source._inbox.waiting == 1, 10, "the request")
    source.close()
    thread.join(10)
    assert answers[0].status_code == 503 and "stopping" in answers[0].json()["error"]


@pytest.mark.parametrize("said", [True, False], ids=["length said", "length not said"])
def test_too_large_is_refused(opened: Callable[..., HttpSource], said: bool) -> None:
    source = opened(max_bytes=2000)
    body: Any = bytes(2001) if said else iter([bytes(1500), bytes(1500)])
    answer = httpx.post(url(source), content=body)
    assert answer.status_code == 413 and "at most 2,000 bytes" in answer.json()["error"]


def test_batch_with_a_file_too_large_or_too_many_is_refused(opened: Callable[..., HttpSource]) -> None:
    source = opened(max_bytes=2000, max_batch=3)
    large = httpx.post(url(source, "/v1/batch"), files=[("file", ("big", bytes(2001)))])
    many = httpx.post(url(source, "/v1/batch"), files=[("file", ("a", b"x"))] * 4)
    none = httpx.post(url(source, "/v1/batch"), files=[], data={"a": "b"})
    assert (large.status_code, many.status_code, none.status_code) == (413, 400, 415)
    assert "big" in large.json()["error"]


def test_sender_that_dawdles_is_cut_off(opened: Callable[..., HttpSource]) -> None:
    source = opened(upload_s=0.2)
    with socket.create_connection(("127.0.0.1", source.port)) as connection:
        connection.sendall(b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
        connection.settimeout(5)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_sender_that_goes_away_leaves_nothing_to_decide(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    with socket.create_connection(("127.0.0.1", source.port)) as connection:
        connection.sendall(b"POST /v1/decide HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
    assert source.read(0.2) is None


def test_token_is_asked_for(opened: Callable[..., HttpSource]) -> None:
    source = opened(token=TOKEN, answer_s=0.1)
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    assert httpx.post(url(source), content=BRIGHT).status_code == 401
    assert httpx.post(url(source), content=BRIGHT, headers=wrong).status_code == 401
    assert httpx.post(url(source, "/v1/batch"), files=[("file", ("a", BRIGHT))]).status_code == 401
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert httpx.post(url(source), content=BRIGHT, headers=right).status_code == 504, "taken, nobody decides here"
    assert httpx.get(url(source, "/healthz")).status_code in (200, 503)


def test_page_of_another_site_cannot_send(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    answer = httpx.post(url(source), content=BRIGHT, headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403 and source.read(0) is None


def test_foreign_name_that_points_here_is_no_way_in(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    answer = httpx.post(url(source), content=BRIGHT, headers={"Host": "elsewhere.example"})
    assert answer.status_code == 403 and source.read(0) is None


def test_network_without_a_token_is_refused(opened: Callable[..., HttpSource]) -> None:
    with pytest.raises(ConfigError, match="a token is needed"):
        opened(host="0.0.0.0")
    assert opened(host="0.0.0.0", token=TOKEN).port > 0


def test_health_says_whether_inputs_are_decided(
    opened: Callable[..., HttpSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened()
    assert httpx.get(url(source, "/healthz")).status_code == 503, "nobody has asked for an input yet"
    source.read(0)
    assert httpx.get(url(source, "/healthz")).json() == {"ready": True, "waiting": 0, "stopping": False}
    monkeypatch.setattr("edge.sources.httpapp.STUCK_S", 0.0)
    time.sleep(0.01)
    assert httpx.get(url(source, "/healthz")).status_code == 503


def test_answers_do_not_wait_for_delayed_acknowledgements(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    took_s: list[float] = []
    with httpx.Client() as client:
        for _ in range(10):
            started = time.perf_counter()
            client.get(url(source, "/healthz"))
            took_s.append(time.perf_counter() - started)
    assert min(took_s[1:]) < 0.03  # 0.5 ms; 44 ms without TCP_NODELAY


def test_openapi_document_describes_every_route_and_the_decision(opened: Callable[..., HttpSource]) -> None:
    source = opened(token=TOKEN)
    document = httpx.get(url(source, "/openapi.json")).json()
    assert set(document["paths"]) == {"/v1/decide", "/v1/batch", "/healthz", "/openapi.json"}
    assert {"verdict", "scores", "reason", "input", "text", "received"} <= set(
        document["components"]["schemas"]["DecisionRow"]["properties"]
    )
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    assert TOKEN not in str(document)


def test_sound_is_taken_too_and_answered_when_its_station_fails_on_it(opened: Callable[..., HttpSource]) -> None:
    source = opened()
    thread, answers = in_background(lambda: httpx.post(url(source), content=pcm(np.full(400, 0.1))))
    window = _first(source)
    source.close()
    thread.join(10)
    assert answers[0].status_code == 503
    assert window.media_type == "audio/wav" and window.data is not None and window.data.shape == (400,)


def test_taken_port_is_a_source_error_that_may_pass(opened: Callable[..., HttpSource]) -> None:
    first = opened()
    with pytest.raises(SourceError, match=f"cannot listen at 127.0.0.1:{first.port}") as caught:
        opened(port=first.port)
    assert caught.value.retry


def test_short_token_is_refused(opened: Callable[..., HttpSource]) -> None:
    with pytest.raises(ConfigError, match="token"):
        opened(token="secret")


def _connected(source: HttpSource) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", source.port))
    connection.settimeout(10)
    return connection


def _connections(source: HttpSource) -> set[Any]:
    found: set[Any] = source._server.server_state.connections
    return found


def _first(source: HttpSource) -> Window:
    found: list[Window] = []

    def came() -> bool:
        window = source.read(0.1)
        found.extend([window] if window else [])
        return bool(found)

    wait_until(came, 10, "a window")
    return found[0]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
