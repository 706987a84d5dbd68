"""Metrics are asked for by device, site, version and stage, over time, by API and command line."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cloud.__main__ import app
from cloud.telemetry import queries
from cloud.telemetry.stages import STAGES, stage_of
from tests.cloud.serving import serving
from tests.cloud.telemetry.test_rollups import EDGES, roll_all, rollups, window
from tests.cloud.world import World, up

MINUTE_MS = 60_000
SOUND: dict[str, Any] = {
    "station": "phone",
    "model": "digits",
    "counts": {"decisions": 4, "verdict.defer": 1, "label.yes": 3, "text.recognised": 2},
    "histograms": {
        "level_dbfs": {"edges": [-60.0, -30.0], "counts": [0, 4, 0]},
        "speech_share": {"edges": [0.5], "counts": [1, 3]},
        "latency_ms.recognise": {"edges": [10.0, 20.0], "counts": [0, 4, 0]},
    },
}


@pytest.fixture
def filled(world: World) -> World:
    """Two sites; box-1 changes its version after half an hour and gets slower."""
    world.enrol("box-1", site="hall-1")
    world.enrol("box-2", site="hall-2")
    start_ms = world.clock.now_ms() - 59 * MINUTE_MS
    newer = {"name": "brightness", "version": "1.1.0", "digest": "cd" * 32, "size_bytes": 10}
    rows = [window(seq, start_ms + (seq - 1) * MINUTE_MS, values=(10.0, 60.0)) for seq in range(1, 31)]
    rows += [window(seq, start_ms + (seq - 1) * MINUTE_MS, values=(80.0,), bundle=newer) for seq in range(31, 61)]
    world.take(up("box-1", rows))
    counts = {"decisions": 10, "verdict.defer": 3}
    world.take(up("box-2", [window(1, start_ms, counts=counts), window(2, start_ms, **SOUND)]))
    roll_all(rollups(world))
    return world


@pytest.fixture
def client(filled: World) -> Iterator[httpx.Client]:
    with serving(filled.services) as made:
        yield made


def _ask(client: httpx.Client, metric: str, **query: Any) -> dict[str, Any]:
    answer = client.get("/v1/metrics/query", params={"metric": metric, **query})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_metric_by_site_version_device_and_over_time(client: httpx.Client) -> None:
    by_site = {group["site"]: group["total"] for group in _ask(client, "brightness", by="site")["groups"]}
    assert (by_site["hall-1"]["count"], by_site["hall-2"]["count"]) == (90, 2)
    by_version = {g["version"]: g for g in _ask(client, "brightness", by="version", device="box-1")["groups"]}
    assert by_version["1.0.0"]["total"]["percentiles"]["95"] == {
        "value": pytest.approx(95, abs=6),
        "low": 50,
        "high": 100,
    }
    assert by_version["1.1.0"]["total"]["percentiles"]["50"]["low"] == 50
    assert [len(group["points"]) for group in by_version.values()] == [30, 30]
    only = _ask(client, "brightness", version="1.1.0", step_s=3600)["groups"]
    assert sum(point["count"] for point in only[0]["points"]) == only[0]["total"]["count"] == 30
    assert _ask(client, "brightness", site="nowhere")["groups"] == []


def test_count_is_shown_with_its_share_of_decisions(client: httpx.Client) -> None:
    groups = {group["device"]: group["total"] for group in _ask(client, "verdict.defer", by="device")["groups"]}
    assert groups["box-2"] == {"count": 4, "of": 14, "share": pytest.approx(4 / 14)}
    assert groups["box-1"]["share"] == 0.0
    assert _ask(client, "decisions", device="box-2")["groups"][0]["total"]["count"] == 14


def test_stages_of_what_sees_and_what_hears(client: httpx.Client) -> None:
    found = {(m["stage"], m["metric"]) for m in client.get("/v1/metrics").json()["metrics"]}
    assert {("camera", "brightness"), ("microphone", "level_dbfs"), ("vad", "speech_share")} <= found
    assert {("recogniser", "latency_ms.recognise"), ("recogniser", "label.yes"), ("decision", "verdict.defer")} <= found
    listed = client.get("/v1/metrics", params={"stage": "vad"}).json()["metrics"]
    assert [m["metric"] for m in listed] == ["speech_share"]
    assert _ask(client, "speech_share", stage="vad")["groups"][0]["total"]["count"] == 4


@pytest.mark.parametrize(
    ("metric", "hearing", "stage"),
    [
        ("sharpness", False, "camera"),
        ("latency_ms.decode", False, "camera"),
        ("latency_ms.decode", True, "microphone"),
        ("latency_ms.gate", False, "gate"),
        ("latency_ms.hang_over", True, "vad"),
        ("confidence", False, "model"),
        ("latency_ms.infer", True, "recogniser"),
        ("latency_ms.total", True, "decision"),
        ("reason.unsure", False, "decision"),
        ("reason.bad_input", True, "vad"),
        ("health.memory_bytes", False, "device"),
    ],
)
def test_each_metric_has_its_stage(metric: str, hearing: bool, stage: str) -> None:
    assert stage_of(metric, hearing=hearing) == stage
    assert stage in STAGES


def test_step_is_chosen_for_reading_and_for_what_is_kept(client: httpx.Client, filled: World) -> None:
    now_ms = filled.clock.now_ms()
    steps = {hours: _ask(client, "brightness", from_ms=now_ms - hours * 3_600_000)["step_s"] for hours in (1, 48, 2000)}
    assert steps == {1: 60, 48: 3600, 2000: 86_400}
    sums = [_ask(client, "brightness", from_ms=now_ms - 7_200_000, step_s=s)["groups"] for s in (60, 3600, 86_400)]
    assert len({json.dumps(groups[0]["total"]) for groups in sums}) == 1


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"metric": "nothing"}, 404, "no device has sent"),
        ({"metric": "brightness", "from_ms": 5, "to_ms": 5}, 422, "from must be before to"),
        ({"metric": "brightness", "step_s": 7}, 422, "expected one of 60, 3600, 86400"),
        ({"metric": "brightness", "p": 0}, 422, "percentiles"),
        ({"metric": "brightness", "by": "colour"}, 422, "by"),
    ],
)
def test_question_without_answer_says_why(client: httpx.Client, query: dict[str, Any], status: int, words: str) -> None:
    answer = client.get("/v1/metrics/query", params=query)
    assert answer.status_code == status
    assert words in answer.text


def test_answer_that_would_be_too_large_is_refused(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_POINTS_READ", 10)
    answer = client.get("/v1/metrics/query", params={"metric": "brightness"})
    assert answer.status_code == 422
    assert "longer step" in answer.json()["hint"]


def test_command_line_shows_metrics_with_their_bounds(client: httpx.Client, filled: World) -> None:
    run, server = CliRunner(), ["--server", str(client.base_url)]
    listed = run.invoke(app, ["metrics", "list", "--stage", "camera", *server])
    assert "brightness" in listed.output
    days = "20000d"  # the world's clock stands years ago
    shown = run.invoke(app, ["metrics", "query", "brightness", "--last", days, "--by", "version", *server])
    assert "1.1.0" in shown.output
    assert f"({EDGES[1]:g}–{EDGES[2]:g})" in shown.output
    as_json = run.invoke(app, ["metrics", "query", "verdict.defer", "--last", days, "--json", "--over-time", *server])
    assert json.loads(as_json.output)["groups"][0]["total"]["count"] == 4
    assert run.invoke(app, ["metrics", "query", "brightness", "--last", "soon", *server]).exit_code == 2
    assert run.invoke(app, ["metrics", "query", "nothing", *server]).exit_code == 4
