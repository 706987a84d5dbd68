"""The HTTP interface as devices, scripts and the console use it."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud import tables
from cloud.app import create_app
from edge.wire.http import EnrolAnswer
from tests.cloud.serving import serving
from tests.cloud.world import World, decision, enrol_request, event, incoming, reported, up

PICTURE = os.urandom(200_000)
DIGEST = hashlib.sha256(PICTURE).hexdigest()
DEFERRED: dict[str, Any] = {"verdict": "defer", "action": "hand_over", "reason": "unsure"}


@pytest.fixture
def http(world: World) -> Iterator[httpx.Client]:
    """A client of the running application."""
    with serving(world.services) as client:
        yield client


def _device(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}


def test_device_enrols_over_http_and_a_stranger_gets_the_reason(world: World, http: httpx.Client) -> None:
    claim = http.post("/v1/claims", json={"profile": "inspection-box"}, headers={"Lineside-Who": "anna"}).json()
    key = Ed25519PrivateKey.generate()
    answer = http.post("/v1/enrol", json=enrol_request(key, claim["token"]).model_dump())
    assert EnrolAnswer.model_validate(answer.json()).device == "box-1"
    refused = http.post("/v1/enrol", json=enrol_request(key, "x" * 43, "box-2").model_dump())
    assert refused.status_code == 403
    assert refused.json()["error"] == "this claim is unknown"
    assert "devices claim" in refused.json()["hint"]
    assert http.post("/v1/enrol", json={"device": "Box"}).status_code == 422
    assert [row.who for row in world.rows(tables.audit_log)] == ["anna", "device box-1"]


def test_input_is_kept_once_and_shown_as_it_is(world: World, http: httpx.Client) -> None:
    headers = _device(world.enrol().token)
    url = f"/v1/inputs/{DIGEST}"
    assert http.get(url).status_code == 404
    assert http.put(url, content=PICTURE, headers=headers).status_code == 201
    assert http.put(url, content=PICTURE, headers=headers).status_code == 200
    shown = http.get(url)
    assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, PICTURE, "image/jpeg")
    assert "sandbox" in shown.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("digest", "content", "expected"),
    [
        (DIGEST, PICTURE[:-1], 422),
        (DIGEST, b"", 422),
        (DIGEST[:-1], PICTURE, 422),
        (DIGEST.upper(), PICTURE, 422),
        ("..%2f" + DIGEST, PICTURE, 404),
    ],
    ids=["cut short", "empty", "short digest", "capitals", "path"],
)
def test_input_that_is_not_what_its_digest_says_is_refused(
    world: World, http: httpx.Client, digest: str, content: bytes, expected: int
) -> None:
    answer = http.put(f"/v1/inputs/{digest}", content=content, headers=_device(world.enrol().token))
    assert answer.status_code == expected
    assert world.count(tables.inputs) == 0
    assert [path for path in world.config.data_dir.glob("inputs/*/*") if path.is_file()] == []


def test_sender_that_goes_in_the_middle_of_an_upload_is_no_fault_and_leaves_nothing(world: World) -> None:
    token = world.enrol().token
    messages = iter([{"type": "http.request", "body": PICTURE[:5], "more_body": True}, {"type": "http.disconnect"}])
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {"host": "127.0.0.1", "content-length": str(len(PICTURE)), **_device(token)}
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "http",
        "path": f"/v1/inputs/{DIGEST}",
        "raw_path": b"",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(create_app(world.services)(scope, receive, send))
    assert sent[0]["status"] == 400
    assert world.count(tables.inputs) == 0
    assert [path for path in world.config.data_dir.glob("inputs/*/*") if path.is_file()] == []


def test_input_of_an_unknown_or_revoked_device_is_refused(world: World, http: httpx.Client) -> None:
    token = world.enrol().token
    assert http.put(f"/v1/inputs/{DIGEST}", content=PICTURE).status_code == 401
    assert http.put(f"/v1/inputs/{DIGEST}", content=PICTURE, headers=_device("x" * 43)).status_code == 401
    world.services.enrolment.revoke("box-1", who="anna")
    assert http.put(f"/v1/inputs/{DIGEST}", content=PICTURE, headers=_device(token)).status_code == 401


@pytest.mark.parametrize("media_type", ["text/html", "image/svg+xml", "application/javascript", ""])
def test_input_that_could_be_a_page_is_only_offered_as_a_file(
    world: World, http: httpx.Client, media_type: str
) -> None:
    headers = {**_device(world.enrol().token), "Content-Type": media_type}
    http.put(f"/v1/inputs/{DIGEST}", content=PICTURE, headers=headers)
    shown = http.get(f"/v1/inputs/{DIGEST}")
    assert shown.headers["content-type"] == "application/octet-stream"
    assert shown.headers["content-disposition"].startswith("attachment")


def test_fleet_devices_decisions_and_events_are_shown(world: World, http: httpx.Client) -> None:
    world.enrol()
    world.take(up("box-1", [decision(1), event(2, name="bundle_promoted"), decision(3)]))
    world.take(incoming("box-1", "reported", reported().model_dump_json().encode()))
    (listed,) = http.get("/v1/devices").json()
    assert (listed["device"], listed["freshness"], listed["stale_since_ms"]) == ("box-1", "fresh", None)
    assert http.get("/v1/devices/box-1").json()["reported"]["software"] == "0.1.0"
    assert [row["seq"] for row in http.get("/v1/devices/box-1/decisions?last=1").json()] == [3]
    assert [row["name"] for row in http.get("/v1/devices/box-1/events").json()] == ["bundle_promoted"]
    assert http.get("/v1/events?name=other").json() == []
    assert http.get("/v1/devices/box-1/telemetry").json() == []
    assert http.get("/v1/devices/box-9").status_code == 404
    assert http.get("/v1/devices/box-9/decisions").status_code == 404
    assert http.get("/v1/devices/box-1/decisions?last=0").status_code == 422


def test_review_gives_the_next_one_at_once_and_keeps_the_answer(world: World, http: httpx.Client) -> None:
    world.enrol()
    rows = [decision(1, **DEFERRED), decision(2, reason="audit"), decision(3, **DEFERRED), decision(4)]
    world.take(up("box-1", rows))
    assert http.get("/v1/review/queue").json()["waiting"] == 3
    first = http.get("/v1/review/next").json()["item"]
    assert first["seq"] == 1
    answer = {"answer": "divert", "label": "scratch", "reviewer": "anna", "note": "left edge"}
    posted = http.post("/v1/review/box-1/i1/1", json=answer)
    assert (posted.status_code, posted.json()["waiting"], posted.json()["item"]["seq"]) == (201, 2, 3)
    (kept,) = world.rows(tables.reviews)
    assert (kept.answer, kept.label, kept.reviewer, kept.note) == ("divert", "scratch", "anna", "left edge")
    for seq in (3, 2):
        last = http.post(f"/v1/review/box-1/i1/{seq}", json={"answer": "cant_tell", "reviewer": "anna"}).json()
    assert (last["waiting"], last["item"]) == (0, None)


def test_review_shows_first_what_can_be_looked_at(world: World, http: httpx.Client) -> None:
    token = world.enrol().token
    second = decision(2, **DEFERRED)
    second["input"]["digest"] = DIGEST
    world.take(up("box-1", [decision(1, **DEFERRED), second]))
    http.put(f"/v1/inputs/{DIGEST}", content=PICTURE, headers=_device(token))
    item = http.get("/v1/review/next").json()["item"]
    assert (item["seq"], item["input_present"]) == (2, True)


@pytest.mark.parametrize(
    ("path", "answer", "expected"),
    [
        ("box-1/i1/1", {"answer": "maybe", "reviewer": "anna"}, 422),
        ("box-1/i1/1", {"answer": "pass", "reviewer": ""}, 422),
        ("box-1/i1/1", {"answer": "pass", "reviewer": "   "}, 422),
        ("box-1/i1/9", {"answer": "pass", "reviewer": "anna"}, 404),
        ("box-1/i1/x", {"answer": "pass", "reviewer": "anna"}, 422),
    ],
)
def test_answer_that_makes_no_sense_is_refused(
    world: World, http: httpx.Client, path: str, answer: dict[str, str], expected: int
) -> None:
    world.enrol()
    world.take(up("box-1", [decision(1, **DEFERRED)]))
    assert http.post(f"/v1/review/{path}", json=answer).status_code == expected
    assert world.services.reviews.waiting() == 1


def test_row_sent_again_after_its_review_does_not_come_back_to_the_queue(world: World) -> None:
    world.enrol()
    batch = up("box-1", [decision(1, **DEFERRED)])
    world.take(batch)
    world.services.reviews.answer("box-1", "i1", 1, answer="pass", reviewer="anna")
    world.take(batch)
    assert world.services.reviews.waiting() == 0
