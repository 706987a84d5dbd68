"""The pages of what is watched, and the keeper that keeps them true."""

from collections.abc import Iterator

import httpx
import pytest

from cloud.telemetry.drift import drifting
from cloud.telemetry.keeper import TelemetryKeeper
from cloud.telemetry.rollups import Tally
from tests.cloud.serving import serving
from tests.cloud.telemetry.test_drift import Line
from tests.cloud.telemetry.test_drift import line as line
from tests.cloud.telemetry.test_drift import rng as rng
from tests.cloud.world import World


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with serving(world.services, headers={"accept": "text/html"}) as made:
        yield made


def _keep(world: World, line: Line) -> TelemetryKeeper:
    line.flush()
    keeper = TelemetryKeeper(world.services.store, world.clock, world.config)
    world.clock.forward(11 * 60)
    while keeper.turn():
        pass
    return keeper


def test_keeper_finds_drift_and_the_pages_show_it(world: World, line: Line, client: httpx.Client) -> None:
    assert "Nothing is compared yet" in client.get("/drift").text
    for hour in range(6):
        line.hour(120 if hour < 3 else 157, defers=0.05 if hour < 3 else 0.5)
    _keep(world, line)
    page = client.get("/drift").text
    assert "brightness lies strongly higher" in page
    assert "data drift that reaches the decisions" in page
    assert "1 of 1" in page
    assert "box-1" in client.get("/drift/box-1").text
    assert client.get("/drift/nobody").status_code == 404
    found = client.get("/v1/drift", params={"device": "box-1"}).json()
    assert found["stations"][0]["kind"] == "data_reaching_decisions"
    assert found["metrics"][0]["devices"] == ["box-1"]
    assert "/drift/box-1" in client.get("/devices/box-1").text


def test_telemetry_page_draws_the_chosen_stage(world: World, line: Line, client: httpx.Client) -> None:
    assert "No telemetry has arrived" in client.get("/telemetry").text
    for _ in range(3):
        line.hour()
    _keep(world, line)
    page = client.get("/telemetry?stage=camera&hours=24").text
    assert 'aria-label="brightness' in page
    assert "p95" in page
    decisions = client.get("/telemetry?stage=decision&site=hall-1&version=1.0.0").text
    assert "verdict" in decisions
    assert "Nothing was counted" in client.get("/telemetry?stage=camera&site=hall-9").text
    assert "<script>" not in client.get("/telemetry?stage=%3Cscript%3E&device=%3Cscript%3E").text


def test_backlog_is_looked_at_when_it_has_come_without_waiting_for_the_hour(world: World, line: Line) -> None:
    line.hour()
    keeper = _keep(world, line)
    away_ms = world.clock.now_ms()
    world.clock.forward(9 * 3600)
    while keeper.turn():
        pass
    for hour in range(6):
        line.send(away_ms + hour * 3_600_000, 170)
    line.flush()
    world.clock.forward(61)
    assert keeper.turn() is False
    with world.services.store.read() as connection:
        assert [row["metric"] for row in drifting(connection)] == ["brightness"]


def test_turn_without_anything_to_do_changes_nothing(world: World) -> None:
    keeper = TelemetryKeeper(world.services.store, world.clock, world.config)
    assert keeper.turn() is keeper.turn() is False
    assert keeper.rollups.tally == Tally()
