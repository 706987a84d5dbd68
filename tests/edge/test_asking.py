"""A station that asks a prediction server about what it defers: a real second daemon, frozen, killed, busy and back."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.asking import Asking
from edge.clock import SystemClock
from edge.config import AskSection
from edge.errors import LinkError
from edge.local.answers import open_parts
from edge.predictor import MAX_PAUSE_S, pause_s, read_answer
from edge.store import Store
from edge.values import StationSettings, Window
from edge.wire.rows import DecisionRow, EventRow
from tests.edge.command import edge
from tests.edge.commands.test_infer import picture
from tests.edge.serverproc import Server
from tests.edge.test_pipeline import BETWEEN, BRIGHT
from tests.rows import decision
from tests.waiting import wait_until
from tests.webserver import WebServer

PHONE = """
[device]
name = "phone-1"
[store]
durability = "process"
[station.main]
model = "brightness"
bundle = "model.lsb"
isolation = "inline"
audit_share = 0
source = {{ kind = "folder", path = "inbox", watch = false }}
actuator = {{ kind = "none" }}
[station.main.ask]
url = "{url}"
timeout_ms = 500
max_waiting = 2
"""


class Phone:
    """A station's questions with its record."""

    def __init__(self, folder: Path, url: str, **settings: Any) -> None:
        self._path = folder / "record.sqlite"
        self.store = self._open()
        config = AskSection.model_validate({"url": url, "timeout_ms": 1500, **settings})
        self.settings = StationSettings("main")
        self.asking = Asking("main", "brightness", config, self._open, lambda: self.settings, SystemClock(), "boot")
        self.asking.start()

    def _open(self) -> Store:
        return Store.open(self._path, clock=SystemClock(), durability="process")

    def defer(self, window: Window = BRIGHT, **changes: Any) -> DecisionRow:
        """Record a deferral and offer it."""
        values: dict[str, Any] = {"verdict": "defer", "action": "hand_over", "reason": "unsure", **changes}
        row = self.store.append_decision(decision(window.name, raw=window.raw or b"", **values), input_key=None)
        self.asking.offer(window, row)
        return row

    def ask(self, window: Window = BRIGHT, **changes: Any) -> DecisionRow:
        """Defer, and wait until the question is over."""
        row = self.defer(window, **changes)
        wait_until(lambda: self.asking.idle, 20, "the end of the question")
        return row

    def events(self, name: str) -> list[EventRow]:
        rows = self.store.rows(kind="event", limit=10_000)
        return [row for row in rows if isinstance(row, EventRow) and row.name == name]

    def problem(self) -> str | None:
        return self.asking.problem

    def close(self) -> None:
        self.asking.stop(20)
        self.store.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that answers; whoever freezes it thaws it."""
    with Server(tmp_path_factory.mktemp("asked") / "server") as made:
        yield made


def test_answer_stands_beside_the_deferral_with_where_and_how_long(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url)
    row = phone.ask(latency_ms={"hang_over": 250.0, "total": 2.0})
    (event,) = phone.events("server_answered")
    assert (event.data["decision_seq"], event.data["verdict"], event.data["label"]) == (row.seq, "pass", "good")
    assert event.data["digest"] == row.input.digest and event.data["bundle"]["name"] == "brightness"
    assert event.data["text"] is None and event.data["review"] == "kept"
    took = event.data["latency_ms"]
    assert 0 < took["infer"] < took["server"] < took["total"]
    assert took["since_speech"] == pytest.approx(took["total"] + 252.0, abs=0.01)
    assert [part.seq for part in open_parts(phone.store).parts] == [row.seq], "a person is asked all the same"
    phone.close()


@pytest.mark.parametrize(
    "privacy",
    [
        "mask = [{ x = 0.5, y = 0.0, width = 0.5, height = 1.0 }]",
        "crop = { x = 0.25, y = 0.25, width = 0.5, height = 0.5 }",
    ],
    ids=["mask", "crop"],
)
def test_server_that_sees_less_than_it_was_sent_answers_all_the_same(tmp_path: Path, privacy: str) -> None:
    with Server(tmp_path / "server", station=privacy) as server:
        phone = Phone(tmp_path, server.url)
        row = phone.ask()
        (event,) = phone.events("server_answered")
        assert event.data["digest"] == row.input.digest and phone.problem() is None
        with Store.open_read_only(server.folder / "data" / "lineside.sqlite", clock=SystemClock()) as store:
            (looked_at,) = store.last_decisions(1)
        assert looked_at.input.digest != row.input.digest
        assert row.input.digest not in looked_at.model_dump_json(), "the record names what was looked at, and no more"
        phone.close()


def test_answer_about_something_else_than_was_sent_is_none(tmp_path: Path) -> None:
    other = decision(verdict="pass", label="good").model_dump_json().encode()
    with WebServer() as server:
        server.behaviour.answer = lambda _request: (200, other)
        phone = Phone(tmp_path, server.url)
        phone.ask()
        assert phone.events("server_answered") == []
        assert "something else" in phone.events("server_unreachable")[0].detail
        phone.close()


def test_sound_that_has_no_file_is_sent_as_one(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url)
    assert BRIGHT.raw is not None
    live = dataclasses.replace(BRIGHT, raw=None, live=True, encode=lambda: BRIGHT.raw or b"")
    phone.ask(live)
    assert len(phone.events("server_answered")) == 1
    phone.close()


def test_only_deferrals_for_the_reasons_named_are_asked_about(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url, reasons=["out_of_distribution"])
    phone.ask()
    phone.ask(verdict="pass", action="pass", reason=None)
    wanted = phone.ask(reason="out_of_distribution")
    assert [event.data["decision_seq"] for event in phone.events("server_answered")] == [wanted.seq]
    phone.close()


def test_sure_decisions_are_asked_about_by_their_label_and_an_audit_of_one_stays_open(
    tmp_path: Path, server: Server
) -> None:
    phone = Phone(tmp_path, server.url, labels=["unknown"], review="close")
    phone.ask(verdict="accept", action="accept", reason=None, label="seven")
    wanted = phone.ask(verdict="accept", action="accept", reason="audit", label="unknown")
    (event,) = phone.events("server_answered")
    assert (event.data["decision_seq"], event.data["review"]) == (wanted.seq, "kept")
    assert [part.seq for part in open_parts(phone.store).parts] == [wanted.seq]
    phone.close()


def test_policy_may_spare_the_person_what_the_server_accepts_and_nothing_else(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url, review="close")
    phone.ask(BRIGHT)
    unsure = phone.ask(BETWEEN)
    assert [event.data["review"] for event in phone.events("server_answered")] == ["closed", "kept"]
    assert [part.seq for part in open_parts(phone.store).parts] == [unsure.seq]
    phone.close()


def test_server_that_is_absent_and_comes_is_one_alarm_and_one_end_of_it(tmp_path: Path) -> None:
    server = Server(tmp_path / "server")
    phone = Phone(tmp_path, server.url)
    absent = [phone.ask().seq for _ in range(3)]
    (alarm,) = phone.events("server_unreachable")
    assert alarm.severity == "alarm" and "refused" in alarm.detail and alarm.detail == phone.problem()
    with server:
        answered = [phone.ask().seq for _ in range(4)]
    (end,) = phone.events("server_reachable")
    assert end.data["failed"] == 3 and phone.problem() is None
    assert [event.data["decision_seq"] for event in phone.events("server_answered")] == answered
    assert {part.seq for part in open_parts(phone.store).parts} == {*absent, *answered}, "no deferral is lost"
    phone.close()


def test_server_that_hangs_is_given_up_in_time_and_answers_when_it_goes_on(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url, timeout_ms=300)
    phone.ask()
    server.freeze()
    try:
        started = time.monotonic()
        phone.ask()
        assert 0.25 < time.monotonic() - started < 3
    finally:
        server.thaw()
    assert "timed out" in phone.events("server_unreachable")[0].detail
    phone.ask()
    assert len(phone.events("server_answered")) == 2, "and no late answer is taken for another question's"
    phone.close()


def test_server_killed_in_the_middle_and_back_is_asked_on_a_new_connection(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        phone = Phone(tmp_path, server.url, timeout_ms=10_000)
        phone.ask()
        server.freeze()
        phone.defer()
        wait_until(lambda: _connected(server.port), 10, "the question to be on its way")
        server.kill()
        wait_until(lambda: phone.asking.idle, 20, "the end of the question")
        assert len(phone.events("server_unreachable")) == 1
        server.start()
        phone.ask()
        assert len(phone.events("server_answered")) == 2
        phone.close()


def test_connection_that_the_server_closed_meanwhile_costs_no_answer(tmp_path: Path) -> None:
    with Server(tmp_path / "server") as server:
        phone = Phone(tmp_path, server.url)
        phone.ask()
        server.kill()
        server.start()
        phone.ask()
        assert len(phone.events("server_answered")) == 2 and phone.events("server_unreachable") == []
        phone.close()


def test_busy_server_is_left_alone_for_as_long_as_it_says(tmp_path: Path) -> None:
    with WebServer() as server:
        server.behaviour.status, server.behaviour.retry_after = [429] * 9, "1"
        phone = Phone(tmp_path, server.url, timeout_ms=1500)
        started = time.monotonic()
        phone.ask()
        assert 1.0 <= time.monotonic() - started < 3, "asked again after the second that it wanted, and not later"
        (alarm,) = phone.events("server_unreachable")
        assert "429" in alarm.detail and len(server.requests) == 2
        phone.close()


def test_token_is_read_from_its_file_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    token = tmp_path / "server.key"
    token.write_text("a wrong one of some length\n")
    with Server(tmp_path / "server", token="at least sixteen characters") as server:
        phone = Phone(tmp_path, server.url, token_file=token)
        phone.ask()
        assert "401" in phone.events("server_unreachable")[0].detail
        token.write_text("at least sixteen characters\n")
        phone.ask()
        assert len(phone.events("server_answered")) == 1
        token.unlink()
        phone.ask()
        assert "token_file" in (phone.problem() or "")
        phone.close()


def test_questions_beyond_the_bound_drop_the_oldest_and_are_counted(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url, max_waiting=2, timeout_ms=1000)
    server.freeze()
    try:
        started = time.monotonic()
        rows = [phone.defer() for _ in range(8)]
        assert time.monotonic() - started < 0.9, "nobody waits for the server"
    finally:
        server.thaw()
    wait_until(lambda: phone.asking.idle, 20, "the end of all questions")
    phone.asking.stop(20)
    asked = {event.data["decision_seq"] for event in phone.events("server_answered")}
    dropped = sum(event.data["count"] for event in phone.events("questions_dropped"))
    assert {rows[-1].seq, rows[-2].seq} <= asked and 5 <= dropped <= 6
    phone.store.close()


def test_stopping_ends_while_the_server_hangs(tmp_path: Path, server: Server) -> None:
    phone = Phone(tmp_path, server.url, timeout_ms=500)
    server.freeze()
    try:
        phone.defer()
        phone.defer()
        started = time.monotonic()
        phone.close()
        assert time.monotonic() - started < 3
    finally:
        server.thaw()


def test_station_decides_at_its_own_rate_while_the_server_hangs(tmp_path: Path, server: Server) -> None:
    phone, patience_ms = tmp_path / "phone", 2000
    phone.mkdir()
    (phone / "model.lsb").write_bytes((server.folder / "model.lsb").read_bytes())
    (phone / "phone.toml").write_text(
        PHONE.format(url=server.url).replace("timeout_ms = 500", f"timeout_ms = {patience_ms}")
    )
    for number in range(60):
        picture(phone / "inbox" / f"{number}.png", 128)
    server.freeze()
    try:
        done = edge("run", "-c", "phone.toml", "--drain", cwd=phone)
    finally:
        server.thaw()
    assert done.returncode == 0, done.stderr
    with Store.open_read_only(phone / "data" / "lineside.sqlite", clock=SystemClock()) as store:
        rows = store.last_decisions(100)
        events = [row for row in store.rows(kind="event") if isinstance(row, EventRow)]
    assert len(rows) == 60 and {row.verdict for row in rows} == {"defer"}
    assert rows[0].monotonic_ms - rows[-1].monotonic_ms < patience_ms, "all sixty within one time-out of one question"
    assert [event.severity for event in events if event.name == "server_unreachable"] == ["alarm"]


def test_answer_of_a_newer_server_is_read_with_its_sentence() -> None:
    row = decision(verdict="accept", label="sentence").model_dump() | {"text": "turn it\x1b[2J on", "new": {"a": 1}}
    answer = read_answer(DecisionRow.model_validate(row).model_dump_json().encode())
    assert (answer.text, answer.label, answer.verdict) == ("turn it [2J on", "sentence", "accept")


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"kind": "decision"}', b"[]"])
def test_what_is_no_decision_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(LinkError, match="expected a decision"):
        read_answer(body)


@pytest.mark.parametrize(
    ("said", "seconds"), [("3", 3.0), ("99999", MAX_PAUSE_S), ("", 1.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 1.0)]
)
def test_pause_that_a_server_asks_for_is_bounded(said: str, seconds: float) -> None:
    assert pause_s({"Retry-After": said} if said else {}) == seconds


def _connected(port: int) -> bool:
    """Whether somebody in this process has a connection to the port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "01" for line in lines)
