"""Rollouts over HTTP: started, shown, moved, and refused with a reason."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.cloud.line import MODEL, Device, Line
from tests.cloud.serving import serving

WHO = {"Lineside-Who": "ann"}


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "cloud", [Device(f"box-{i}") for i in (1, 2, 3)])
    made.second()
    yield made
    made.close()


@pytest.fixture
def client(line: Line) -> Iterator[httpx.Client]:
    with serving(line.services, headers=WHO) as opened:
        yield opened


def start(client: httpx.Client, **fields: object) -> httpx.Response:
    return client.post("/v1/rollouts", json={"model": MODEL, "version": "1.1.0", **fields})


def test_a_rollout_is_started_shown_paused_resumed_and_aborted(client: httpx.Client, line: Line) -> None:
    answer = start(client, plan="error = 0.02\n", why="less glare")
    assert answer.status_code == 201
    started = answer.json()
    assert (started["status"], started["created_by"], started["plan"]["error"]) == ("running", "ann", 0.02)
    line.second()
    shown = client.get(f"/v1/rollouts/{started['id']}").json()
    assert shown["stage"]["kind"] == "shadow"
    assert shown["arms"]["waiting"] == ["box-1", "box-2", "box-3"]
    assert shown["waiting_for"] == ["waits for box-1, box-2, box-3 to have it on disk"]
    assert [entry["step"] for entry in shown["log"]][:2] == ["started", "devices_joined"]
    for move, status in (("pause", "paused"), ("resume", "running"), ("abort", "aborted")):
        moved = client.post(f"/v1/rollouts/{started['id']}/{move}", json={"why": "because"})
        assert (moved.status_code, moved.json()["status"]) == (200, status)
        assert moved.json()["why"].endswith("by ann: because")
    assert [r["id"] for r in client.get("/v1/rollouts").json()["rollouts"]] == [started["id"]]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"version": "9.9.9"}, 404, "has not been published"),
        ({"version": "1.0.0"}, 409, "already"),
        ({"plan": "eror = 1"}, 422, "eror"),
        ({"plan": "[cohort]\nsites = ['nowhere']"}, 422, "no device"),
        ({"version": "latest"}, 422, "version"),
        ({"surprise": 1}, 422, "surprise"),
    ],
)
def test_what_cannot_be_started_is_refused_with_a_reason(
    client: httpx.Client, fields: dict[str, object], status: int, said: str
) -> None:
    answer = start(client, **fields)
    assert answer.status_code == status
    assert said in answer.text


def test_a_move_without_a_reason_or_of_no_rollout_is_refused(client: httpx.Client) -> None:
    rollout = start(client).json()["id"]
    assert client.post(f"/v1/rollouts/{rollout}/pause", json={}).status_code == 422
    assert client.post(f"/v1/rollouts/{rollout}/pause", json={"why": ""}).status_code == 422
    assert client.post(f"/v1/rollouts/{rollout}/resume", json={"why": "go"}).status_code == 409
    assert client.post("/v1/rollouts/nothing/pause", json={"why": "go"}).status_code == 404
    assert client.get("/v1/rollouts/nothing").status_code == 404
