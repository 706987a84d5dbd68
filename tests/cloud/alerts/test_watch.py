"""Rules look at real tables; a real mail server and a real HTTP server are told, once, after trouble as well."""

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from typer.testing import CliRunner

from cloud import audit, tables
from cloud.__main__ import app
from cloud.alerts.book import AlertBook
from cloud.alerts.rules import WatchConfig, parse
from cloud.alerts.signals import observe
from cloud.alerts.tables import alert_deliveries, alerts
from cloud.alerts.watch import AlertWatch
from cloud.errors import InvalidError, NotFoundError
from tests.brokers import free_port
from tests.cloud.alerts.certificate import self_signed
from tests.cloud.serving import serving
from tests.cloud.telemetry.test_drift import Line, look
from tests.cloud.telemetry.test_drift import line as line
from tests.cloud.telemetry.test_drift import rng as rng
from tests.cloud.telemetry.test_rollups import roll_all, rollups, window
from tests.cloud.world import World, decision, incoming, reported, up

STALE: dict[str, Any] = {"name": "stale", "kind": "stale", "older_than_s": 60, "clear_s": 0}


def watch_of(world: World, *rules: dict[str, Any], channels: tuple[dict[str, Any], ...] = ()) -> AlertWatch:
    """Return a watch over these rules."""
    mistakes, config = parse({"rule": list(rules), "channel": list(channels)})
    assert mistakes == []
    assert isinstance(config, WatchConfig)
    return AlertWatch(world.services.store, world.clock, world.services.fleet, config, "http://console")


def firing(world: World) -> dict[str, str]:
    """Return what fires: subject → words."""
    book = AlertBook(world.services.store, world.clock)
    return {one["subject"]: one["words"] for one in book.alerts()}


def hear(world: World, device: str = "box-1") -> None:
    """Let a device report."""
    world.take(incoming(device, "reported", reported(device).model_dump_json().encode()))


@pytest.fixture
def _box(world: World) -> None:
    world.enrol("box-1")
    world.enrol("box-2")


@pytest.mark.usefixtures("_box")
def test_stale_device_fires_and_is_over_when_it_is_heard_again(world: World) -> None:
    watch = watch_of(world, STALE)
    hear(world)
    watch.look()
    assert firing(world) == {}
    world.clock.forward(61)
    watch.look()
    assert "box-1 of hall-1 was last heard 61 s ago" in firing(world)["box-1"]
    hear(world)
    watch.look()
    assert firing(world) == {}
    assert [row.state for row in world.rows(alerts)] == ["resolved"]


@pytest.mark.usefixtures("_box")
def test_threshold_fires_by_its_group_with_hysteresis(world: World) -> None:
    rule = {"name": "errors", "kind": "threshold", "metric": "reason.model_error", "of": "share", "above": 0.1}
    watch = watch_of(world, {**rule, "clear": 0.02, "by": "device", "window_s": 600, "for_s": 30, "clear_s": 0})
    seqs = iter(range(1, 100))

    def minute(errors: int) -> None:
        counts = {"decisions": 100, **({"reason.model_error": errors} if errors else {})}
        world.take(up("box-1", [window(next(seqs), world.clock.now_ms(), counts=counts)]))
        roll_all(rollups(world))
        world.clock.forward(60)
        watch.look()

    minute(30)
    assert firing(world) == {}  # pending: it must hold for half a minute
    minute(30)
    assert "share is 0.3" in firing(world)["box-1"]
    for _ in range(10):
        minute(5)
    assert list(firing(world)) == ["box-1"]  # neither above one limit nor below the other
    for _ in range(11):
        minute(0)
    assert firing(world) == {}


@pytest.mark.usefixtures("_box")
def test_percentile_threshold_says_nothing_of_too_few(world: World) -> None:
    rule = {"name": "slow", "kind": "threshold", "metric": "brightness", "of": "p95", "above": 90, "min_n": 5}
    watch = watch_of(world, rule)
    world.take(up("box-1", [window(1, world.clock.now_ms(), values=(99.0,) * 4)]))
    world.take(up("box-2", [window(1, world.clock.now_ms(), values=(99.0,) * 9)]))
    roll_all(rollups(world))
    watch.look()
    assert list(firing(world)) == ["box-2"]


@pytest.mark.usefixtures("_box")
def test_device_that_is_there_and_sends_no_decisions_is_missed(world: World) -> None:
    watch = watch_of(world, {"name": "quiet", "kind": "absence", "window_s": 600})
    for device in ("box-1", "box-2"):
        world.take(up(device, [window(1, world.clock.now_ms())]))
    roll_all(rollups(world))
    world.clock.forward(3600)
    hear(world, "box-1")  # box-2 is away: that is the business of another rule
    watch.look()
    assert firing(world) == {"box-1": "box-1 has sent no decisions for 60 min"}


def test_drift_fires_with_what_moved(world: World, line: Line) -> None:
    watch = watch_of(world, {"name": "drift", "kind": "drift", "clear_s": 0})
    for _ in range(3):
        line.hour(157)
    look(world, line)
    watch.look()
    assert "brightness lies strongly higher" in firing(world)["box-1 glass"]
    for _ in range(3):
        line.hour(120)
    look(world, line)
    watch.look()
    assert firing(world) == {}


@pytest.mark.usefixtures("_box")
def test_rollback_waiting_reviews_and_low_agreement_fire(world: World) -> None:
    agree = {"name": "agree", "kind": "agreement", "below": 0.9, "min_n": 10}
    back = {"name": "back", "kind": "rollback", "stands_s": 100, "clear_s": 0}
    watch = watch_of(world, agree, back, {"name": "waits", "kind": "review_queue", "older_than_s": 3600})
    watch.look()
    assert firing(world) == {}
    now_ms = world.clock.now_ms()
    bundle = {"name": "brightness", "version": "1.0.0", "digest": "ab" * 32, "size_bytes": 10}
    rows = [decision(n, at_ms=now_ms, reason="audit", bundle=bundle) for n in range(1, 13)]
    world.take(up("box-1", [*rows, decision(13, at_ms=now_ms, verdict="defer", reason="unsure", action="hand_over")]))
    for seq in range(1, 13):
        world.services.reviews.answer("box-1", "i1", seq, answer="divert" if seq < 5 else "pass", reviewer="eva")
    with world.services.store.write() as connection:
        step = {"rollout": "glass-1", "at_ms": now_ms, "step": "rolled_back", "reason": "escapes", "data": {}}
        connection.execute(tables.rollout_log.insert().values(**step))
    world.clock.forward(50)
    watch.look()
    assert firing(world)["brightness"] == "people agree with 66.7 % of 12 audited decisions of brightness"
    assert firing(world)["glass-1"] == "rollout glass-1 was taken back: escapes"
    world.clock.forward(7200)
    watch.look()
    assert set(firing(world)) == {"brightness", "review"}


@pytest.mark.usefixtures("_box")
def test_rule_that_fails_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = observe

    def broken(connection: Any, rule: Any, *rest: Any) -> Any:
        return 1 / 0 if rule.kind == "drift" else real(connection, rule, *rest)

    monkeypatch.setattr("cloud.alerts.watch.observe", broken)
    watch = watch_of(world, {"name": "d", "kind": "drift"}, STALE)
    hear(world)
    world.clock.forward(100)
    watch.look()
    assert list(firing(world)) == ["box-1"]


@pytest.mark.usefixtures("_box")
def test_rule_that_was_taken_out_ends_its_alerts(world: World) -> None:
    hear(world)
    world.clock.forward(100)
    watch_of(world, STALE).look()
    assert list(firing(world)) == ["box-1"]
    watch_of(world, {**STALE, "name": "other", "older_than_s": 10_000}).look()
    assert firing(world) == {}


@contextmanager
def webhook(answers: Callable[[int], int]) -> Iterator[tuple[str, list[tuple[Any, bytes]]]]:
    """Run a server that keeps what is posted, and answers the n-th post as told."""
    heard: list[tuple[Any, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.append((self.headers, body))
            self.send_response(answers(len(heard)))
            self.end_headers()

        def log_message(self, *_words: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", heard
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


def _hook(tmp_path: Path, url: str) -> dict[str, Any]:
    (tmp_path / "secret").write_text("a secret that both know\n")
    return {"name": "hook", "kind": "webhook", "url": url, "secret_file": str(tmp_path / "secret")}


@pytest.mark.usefixtures("_box")
def test_webhook_is_signed_tried_again_and_told_once_also_after_a_restart(world: World, tmp_path: Path) -> None:
    with webhook(lambda n: 503 if n < 3 else 204) as (url, heard):

        def made() -> AlertWatch:
            return watch_of(world, {**STALE, "to": ["hook"]}, channels=(_hook(tmp_path, url),))

        hear(world)
        world.clock.forward(100)
        made().look()
        assert made().tell_due() == 0
        assert made().tell_due() == 0  # not before its time
        assert len(heard) == 1
        for wait_s in (11, 21):
            world.clock.forward(wait_s)
            again = made()
            again.look()
            again.tell_due()
        world.clock.forward(5000)
        assert made().tell_due() == 0
    assert len({headers["Lineside-Delivery"] for headers, _ in heard}) == 1
    headers, body = heard[-1]
    at, signature = headers["Lineside-Signature"].split(",")
    signed = f"{at.removeprefix('t=')}.".encode() + body
    assert signature == "v1=" + hmac.new(b"a secret that both know", signed, hashlib.sha256).hexdigest()
    document = json.loads(body)
    assert (document["what"], document["subject"], document["link"]) == ("fired", "box-1", "http://console/alerts")
    (delivery,) = world.rows(alert_deliveries)
    assert (delivery.attempts, delivery.error, delivery.next_ms) == (3, "", None)


@pytest.mark.usefixtures("_box")
def test_webhook_that_never_answers_is_given_up_and_shown(world: World, tmp_path: Path) -> None:
    watch = watch_of(world, {**STALE, "to": ["hook"]}, channels=(_hook(tmp_path, "http://127.0.0.1:9/"),))
    hear(world)
    world.clock.forward(100)
    watch.look()
    for _ in range(20):
        watch.tell_due()
        world.clock.forward(3601)
    (told,) = AlertBook(world.services.store, world.clock).alerts()[0]["told"]
    assert (told["attempts"], told["next_ms"], told["error"].startswith("given up: ")) == (15, None, True)


@pytest.mark.usefixtures("_box")
def test_end_is_told_to_who_was_told_of_the_beginning(world: World, tmp_path: Path) -> None:
    with webhook(lambda _n: 200) as (url, heard):
        watch = watch_of(world, {**STALE, "to": ["hook"]}, channels=(_hook(tmp_path, url),))
        hear(world)
        world.clock.forward(100)
        watch.look()
        hear(world)
        watch.look()
        watch.look()
        assert watch.tell_due() == 2
    assert [json.loads(body)["what"] for _, body in heard] == ["fired", "resolved"]


class Mailbox:
    """Keeps what a mail server takes."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        """Take a mail."""
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content)))
        return "250 OK"


@pytest.mark.usefixtures("_box")
def test_mail_goes_to_a_real_server_with_starttls_and_sign_in(world: World, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    (tmp_path / "password").write_text("letmein\n")
    box = Mailbox()

    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"lineside", b"letmein"))

    options: dict[str, Any] = {
        "tls_context": context,
        "auth_required": True,
        "authenticator": check,
        "require_starttls": True,
    }
    port = free_port()
    server = Controller(box, hostname="127.0.0.1", port=port, **options)
    server.start()
    try:
        channel = {
            "name": "mail", "kind": "email", "host": "127.0.0.1", "port": port,
            "sender": "lineside@example.com", "recipients": ["a@example.com", "b@example.com"],
            "username": "lineside", "password_file": str(tmp_path / "password"), "ca_file": str(certificate),
        }  # fmt: skip
        watch = watch_of(world, {**STALE, "to": ["mail"]}, channels=(channel,))
        hear(world)
        world.clock.forward(100)
        watch.look()
        assert watch.tell_due() == 1, world.rows(alert_deliveries)
    finally:
        server.stop()
    ((recipients, mail),) = box.mails
    assert recipients == ["a@example.com", "b@example.com"]
    assert mail["Subject"] == "[Lineside] stale: box-1"
    assert "was last heard 100 s ago" in mail.get_payload()
    assert "http://console/alerts" in mail.get_payload()


@pytest.mark.usefixtures("_box")
def test_acknowledged_and_silenced_are_told_to_nobody_and_stand_in_the_audit_log(world: World, tmp_path: Path) -> None:
    book = AlertBook(world.services.store, world.clock)
    with webhook(lambda _n: 200) as (url, heard):
        watch = watch_of(world, {**STALE, "to": ["hook"]}, channels=(_hook(tmp_path, url),))
        silence = book.silence(rule="stale", subject="box-1", for_s=300, who="anna", why="moved")
        hear(world, "box-1")
        hear(world, "box-2")
        world.clock.forward(100)
        watch.look()
        watch.tell_due()
        assert [json.loads(body)["subject"] for _, body in heard] == ["box-2"]
        assert {one["subject"]: one["silenced"] for one in book.alerts()} == {"box-1": True, "box-2": False}
        number = next(one["id"] for one in book.alerts() if one["subject"] == "box-1")
        book.acknowledge(number, who="anna", why="I am there")
        book.end_silence(silence["id"], who="anna")
        world.clock.forward(1000)
        watch.look()
        assert watch.tell_due() == 0
    with world.services.store.read() as connection:
        told = {row["what"]: (row["who"], row["why"]) for row in audit.rows(connection)}
    assert told["alert_acknowledged"] == ("anna", "I am there")
    assert told["alerts_silenced"] == ("anna", "moved")
    assert "silence_ended" in told
    with pytest.raises(NotFoundError):
        book.acknowledge(9999, who="anna", why="x")
    with pytest.raises(InvalidError):
        book.acknowledge(number, who="anna", why=" ")
    with pytest.raises(InvalidError):
        book.silence(rule="", subject="", for_s=10**9, who="anna", why="x")


@pytest.mark.usefixtures("_box")
def test_alert_is_told_when_its_silence_is_over(world: World, tmp_path: Path) -> None:
    with webhook(lambda _n: 200) as (url, heard):
        watch = watch_of(world, {**STALE, "to": ["hook"]}, channels=(_hook(tmp_path, url),))
        AlertBook(world.services.store, world.clock).silence(rule="", subject="", for_s=300, who="anna", why="night")
        hear(world)
        world.clock.forward(100)
        watch.look()
        assert watch.tell_due() == 0
        world.clock.forward(300)
        watch.look()
        assert watch.tell_due() == 1
    assert len(heard) == 1


@pytest.mark.usefixtures("_box")
def test_command_line_and_page_show_acknowledge_and_silence(world: World) -> None:
    hear(world)
    world.clock.forward(100)
    watch_of(world, STALE).look()
    run = CliRunner()
    with serving(world.services, headers={"accept": "text/html"}) as client:
        server = ["--server", str(client.base_url)]
        assert "was last heard" in run.invoke(app, ["alerts", "list", *server]).output
        (one,) = json.loads(run.invoke(app, ["alerts", "list", "--json", *server]).output)["alerts"]
        page = client.get("/alerts").text
        assert f'data-ask="ack" data-alert="{one["id"]}"' in page
        done = run.invoke(app, ["alerts", "ack", str(one["id"]), "--why", "on my way", *server])
        assert done.exit_code == 0, done.output
        silenced = run.invoke(app, ["alerts", "silence", "--for", "8h", "--why", "night", *server])
        assert silenced.exit_code == 0, silenced.output
        shown = run.invoke(app, ["alerts", "list", *server]).output
        assert "acknowledged" in shown
        assert "every rule, every subject until" in shown
        page = client.get("/alerts").text
        assert "on my way" in page
        assert "Silences" in page
        assert run.invoke(app, ["alerts", "ack", "77", "--why", "x", *server]).exit_code == 4
        assert run.invoke(app, ["alerts", "silence", "--for", "ever", "--why", "x", *server]).exit_code == 2
