"""Webhooks against a real server that fails in every way: nothing is lost, over restarts too, and all is signed."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.actuators import open_actuator, webhook
from edge.actuators.interface import Actuator, Place
from edge.actuators.webhook import identity
from edge.errors import ActuatorError, ConfigError
from edge.store import Store
from edge.wire.rows import DecisionRow, EventRow, OutcomeRow
from tests.clocks import HeldClock
from tests.seams.test_actuators import decision
from tests.waiting import wait_until
from tests.webserver import Request, WebServer

SECRET = "k" * 32


class Line:
    """A station whose actions are posted."""

    def __init__(self, folder: Path, server: WebServer) -> None:
        self.folder, self.server, self.clock = folder, server, HeldClock()
        self.store = self.open_store()
        self.taken: list[dict[str, Any]] = []
        server.behaviour.answer = self._take
        self.secret = folder / "webhook.key"
        self.secret.write_text(SECRET + "\n")

    def open_store(self) -> Store:
        return Store.open(self.folder / "record.sqlite", clock=self.clock, durability="process")

    def open(self, **changes: Any) -> Actuator:
        settings = {"url": f"{self.server.url}/taken", "secret_file": str(self.secret), "backoff_max_s": 0.05}
        place = Place("box-1", "press", "b" * 32, self.open_store)
        return open_actuator("webhook", settings | changes, clock=self.clock, place=place)

    def decide(self, actuator: Actuator | None, **changes: Any) -> int:
        """Record a decision as the pipeline does, and wake the actuator if there is one."""
        row = self.store.append_decision(decision(1, at_ms=self.clock.now_ms(), **changes), input_key=None)
        if actuator is not None:
            assert actuator.act(row) == "queued"
        return row.seq

    def outcomes(self) -> list[OutcomeRow]:
        return [row for row in self.store.rows(kind="outcome") if isinstance(row, OutcomeRow)]

    def events(self) -> list[EventRow]:
        return [row for row in self.store.rows(kind="event") if isinstance(row, EventRow)]

    def wait(self, outcomes: int) -> None:
        wait_until(lambda: len(self.outcomes()) >= outcomes, 10, f"{outcomes} outcomes")

    def _take(self, request: Request) -> tuple[int, bytes]:
        self.taken.append(json.loads(request.body))
        return 200, b"ok"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with WebServer() as server:
        made = Line(tmp_path, server)
        yield made
        made.store.close()


def test_action_is_posted_and_its_outcome_recorded(line: Line) -> None:
    actuator = line.open()
    seq = line.decide(actuator, label="scratch", confidence=0.98)
    line.wait(1)
    actuator.close()
    (body,) = line.taken
    assert (body["decision"], body["verdict"], body["action"], body["label"]) == (seq, "divert", "divert", "scratch")
    assert (body["device"], body["station"], body["decided_at_ms"]) == ("box-1", "press", line.clock.now_ms())
    (outcome,) = line.outcomes()
    assert (outcome.decision_seq, outcome.state, outcome.actuator) == (seq, "done", "webhook")
    assert line.store.pending_actions() == [] and line.events() == []


def test_request_is_signed_over_id_time_and_body(line: Line) -> None:
    actuator = line.open()
    seq = line.decide(actuator)
    line.wait(1)
    actuator.close()
    (request,) = line.server.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    identity, at_s = headers["webhook-id"], headers["webhook-timestamp"]
    signed = f"{identity}.{at_s}.".encode() + request.body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert identity == headers["idempotency-key"] == f"{line.store.incarnation}-{seq}"
    assert at_s == str(line.clock.now_ms() // 1000)


def test_failing_receiver_is_tried_again_with_one_id_and_one_alarm(line: Line) -> None:
    line.server.behaviour.status = [500, 503, 401, 429, 500]
    actuator = line.open()
    first, second = line.decide(actuator), line.decide(actuator)
    line.wait(2)
    actuator.close()
    assert [body["decision"] for body in line.taken] == [first, second], "in order"
    identities = [request.headers["webhook-id"] for request in line.server.requests]
    assert len(set(identities[:6])) == 1 and len(identities) == 7
    assert [event.name for event in line.events()] == ["actuator_failure_raised", "actuator_failure_cleared"]
    assert line.events()[0].severity == "alarm" and "answered 500" in line.events()[0].detail


def test_what_was_pending_at_a_kill_is_posted_after_the_restart(line: Line) -> None:
    seqs = [line.decide(None) for _ in range(3)]
    actuator = line.open()
    line.wait(3)
    actuator.close()
    assert [body["decision"] for body in line.taken] == seqs


def test_receiver_that_is_down_over_a_restart_gets_all_of_it_once(line: Line) -> None:
    line.server.behaviour.status = [502] * 10_000
    actuator = line.open()
    seqs = [line.decide(actuator) for _ in range(4)]
    wait_until(lambda: len(line.server.requests) >= 3, 10, "three tries")
    actuator.close()
    assert line.outcomes() == [] and line.store.pending_actions("press") == seqs
    line.server.behaviour.status.clear()
    again = line.open()
    line.wait(4)
    again.close()
    assert [body["decision"] for body in line.taken] == seqs
    assert [outcome.decision_seq for outcome in line.outcomes()] == seqs


def test_other_stations_actions_are_left_alone(line: Line) -> None:
    other = line.decide(None, station="oven")
    actuator = line.open()
    line.decide(actuator)
    line.wait(1)
    actuator.close()
    assert line.store.pending_actions() == [other]


def test_refused_action_is_recorded_and_the_next_one_goes_on(line: Line) -> None:
    line.server.behaviour.status = [422]
    actuator = line.open()
    line.decide(actuator)
    line.decide(actuator)
    line.wait(2)
    actuator.close()
    assert [outcome.state for outcome in line.outcomes()] == ["failed", "done"]
    assert "answered 422" in (line.outcomes()[0].detail or "")
    assert [event.name for event in line.events()] == ["actuator_failure_raised", "actuator_failure_cleared"]


def test_action_that_nobody_took_for_too_long_has_failed(line: Line) -> None:
    line.server.behaviour.status = [503]
    line.decide(None)
    line.clock.forward(2 * 3600)
    actuator = line.open(expire_h=1.0)
    line.wait(1)
    actuator.close()
    assert line.outcomes()[0].state == "failed"
    assert "not taken within 1 h" in (line.outcomes()[0].detail or "")


def test_hanging_receiver_does_not_keep_a_decision_waiting(line: Line) -> None:
    line.server.behaviour.drip_s = 5.0
    actuator = line.open(timeout_ms=200)
    started_s = time.monotonic()
    line.decide(actuator)
    assert time.monotonic() - started_s < 0.2
    wait_until(lambda: actuator.look() is not None, 10, "the time limit")
    assert line.outcomes() == []
    line.server.stopping.set()
    actuator.close()


def test_safe_action_and_stop_are_posted_at_once_or_fail(line: Line) -> None:
    actuator = line.open()
    actuator.safe("no room on disk")
    actuator.stop("5 rejects in a row")
    actuator.release()
    assert [body["action"] for body in line.taken] == ["safe", "stop", "release"]
    assert len({request.headers["webhook-id"] for request in line.server.requests}) == 3
    line.server.behaviour.status = [500]
    with pytest.raises(ActuatorError, match="answered 500"):
        actuator.safe("again")
    actuator.close()


def test_secret_that_is_missing_or_short_is_a_mistake_of_the_config(line: Line) -> None:
    line.secret.write_text("short")
    with pytest.raises(ConfigError, match="at least 24 characters, got 5"):
        line.open()
    line.secret.unlink()
    with pytest.raises(ConfigError, match="secret_file: cannot read") as caught:
        line.open()
    assert "openssl rand" in caught.value.hint


def test_identity_of_an_action_outlives_a_damaged_record() -> None:
    row = decision(7)
    assert identity(row, "first") == "first-7"
    moved = DecisionRow.model_validate(
        {**row.model_dump(), "salvaged_from": {"incarnation": "first", "seq": 7}, "seq": 3}
    )
    assert identity(moved, "second") == "first-7"


def test_delivery_that_fails_in_a_way_nobody_foresaw_goes_on(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "LOOK_S", 0.05)
    post, calls = webhook.Poster.post, []

    def fail_once(self: webhook.Poster, name: str, entry: dict[str, Any]) -> Any:
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError("nobody foresaw it")
        return post(self, name, entry)

    monkeypatch.setattr(webhook.Poster, "post", fail_once)
    actuator = line.open()
    line.decide(actuator)
    line.wait(1)
    actuator.close()
    assert line.outcomes()[0].state == "done" and len(calls) == 2
