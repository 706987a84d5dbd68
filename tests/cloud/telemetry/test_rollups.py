"""Windows are added up once each, however often, late or in whatever order they come."""

import random
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from cloud import tables
from cloud.config import TelemetryConfig
from cloud.telemetry import rollups as module
from cloud.telemetry.rollups import DAY_MS, Rollups
from cloud.telemetry.tables import health_samples, metric_points, metric_series, rollup_marks, rollup_queue
from edge.wire.messages import Health
from edge.wire.rows import LATENCY_EDGES_MS
from tests.cloud.world import World, event, incoming, reported, up

EDGES = [0.0, 50.0, 100.0]


def window(seq: int, at_ms: int, *, values: tuple[float, ...] = (10.0, 60.0), **fields: Any) -> dict[str, Any]:
    """Return a telemetry row as a device writes it: brightness and latency of `values`."""
    counts = [0] * (len(EDGES) + 1)
    for value in values:
        counts[bisect_right(EDGES, value)] += 1
    latency = [0] * (len(LATENCY_EDGES_MS) + 1)
    latency[20] = len(values)
    return {
        "kind": "telemetry",
        "seq": seq,
        "station": "glass",
        "model": "brightness",
        "bundle": {"name": "brightness", "version": "1.0.0", "digest": "ab" * 32, "size_bytes": 10},
        "started_at_ms": at_ms,
        "ended_at_ms": at_ms + 60_000,
        "counts": {"decisions": len(values), "verdict.pass": len(values)},
        "histograms": {
            "brightness": {"edges": EDGES, "counts": counts},
            "latency_ms.total": {"edges": LATENCY_EDGES_MS, "counts": latency},
        },
        **fields,
    }


def rollups(world: World, **settings: Any) -> Rollups:
    """Return the rollups of a control plane."""
    return Rollups(world.services.store, world.clock, TelemetryConfig(**settings))


def roll_all(made: Rollups) -> None:
    """Add up until nothing waits."""
    while made.roll():
        pass


def sums(world: World, metric: str, step_s: int, device: str = "box-1") -> dict[int, int]:
    """Return how much a device's metric has counted, by start."""
    series = {row.id for row in world.rows(metric_series) if (row.device, row.metric) == (device, metric)}
    points = [row for row in world.rows(metric_points) if row.series in series and row.step_s == step_s]
    return {start: sum(row.n for row in points if row.start_ms == start) for start in {r.start_ms for r in points}}


@pytest.fixture(autouse=True)
def _members(world: World) -> None:
    world.enrol("box-1")
    world.enrol("box-2")


def test_windows_repeated_shuffled_and_rolled_at_any_time_count_once(world: World) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    start_ms = world.clock.now_ms() - 3 * 3_600_000
    rows = [window(seq, start_ms + seq * 60_000) for seq in range(1, 121)]
    batches = [rows[at : at + rng.randint(5, 15)] for at in range(0, 120, 5)] * 3
    rng.shuffle(batches)
    made = rollups(world, roll_rows=7)
    for batch in batches:
        world.take(up("box-1", batch))
        if rng.random() < 0.5:
            made.roll()
    roll_all(made)
    for metric in ("decisions", "brightness", "latency_ms.total"):
        for step_s in (60, 3600, 86_400):
            assert sum(sums(world, metric, step_s).values()) == 240, (metric, step_s)
    assert all(n == 2 for n in sums(world, "brightness", 60).values())
    assert world.quarantined() == []


def test_device_a_month_offline_counts_where_it_belongs(world: World) -> None:
    made = rollups(world)
    month_ago_ms = world.clock.now_ms() - 30 * DAY_MS
    world.take(up("box-2", [window(1, world.clock.now_ms() - 60_000)]))
    roll_all(made)
    world.take(up("box-1", [window(seq, month_ago_ms + seq * 3_600_000) for seq in range(1, 721)][:500]))
    roll_all(made)
    hours = sums(world, "brightness", 3600)
    assert len(hours) == 500
    assert min(hours) >= month_ago_ms
    assert sum(sums(world, "brightness", 86_400).values()) == 1000
    assert sums(world, "brightness", 60) == {}  # minutes of that age are not kept any more
    assert made.tally.too_old == 0


def test_window_removed_for_its_age_is_not_counted_again_when_it_is_sent_again(world: World) -> None:
    made = rollups(world, raw_days=1)
    rows = [window(seq, world.clock.now_ms() + seq) for seq in range(1, 4)]
    world.take(up("box-1", rows))
    roll_all(made)
    world.clock.forward(3 * 86_400)
    assert made.let_go() >= 3
    assert world.count(tables.telemetry) == 0
    assert world.take(up("box-1", rows)) == {"box-1": 3}
    roll_all(made)
    assert world.count(rollup_queue) == world.count(tables.telemetry) == 0
    assert sum(sums(world, "brightness", 86_400).values()) == 6


def test_window_beyond_a_hole_stays_until_the_hole_is_filled(world: World) -> None:
    made = rollups(world, raw_days=1)
    world.take(up("box-1", [window(1, world.clock.now_ms()), window(3, world.clock.now_ms())]))
    roll_all(made)
    world.clock.forward(3 * 86_400)
    made.let_go()
    assert [row.seq for row in world.rows(tables.telemetry)] == [3]
    world.take(up("box-1", [event(2)]))
    made.let_go()
    assert world.count(tables.telemetry) == 0


def test_each_step_is_kept_as_long_as_the_settings_say(world: World) -> None:
    made = rollups(world, minute_days=1, hour_days=14, day_days=90)
    world.take(up("box-1", [window(1, world.clock.now_ms())]))
    roll_all(made)
    for days, left in ((2, {3600, 86_400}), (14, {86_400}), (90, set())):
        world.clock.forward(days * 86_400)
        made.let_go()
        assert {row.step_s for row in world.rows(metric_points)} == left
    assert world.count(metric_series) == 0
    world.take(up("box-1", [window(2, world.clock.now_ms())]))
    roll_all(made)
    assert world.count(metric_series) == 4


def test_window_of_a_clock_that_runs_ahead_counts_when_it_came(world: World) -> None:
    made = rollups(world)
    world.take(up("box-1", [window(1, world.clock.now_ms() + 400 * DAY_MS)]))
    roll_all(made)
    assert max(sums(world, "brightness", 60)) <= world.clock.now_ms()


def test_window_older_than_anything_kept_is_let_go_and_said_so(world: World) -> None:
    made = rollups(world)
    world.take(up("box-1", [window(1, 1000), window(2, world.clock.now_ms())]))
    roll_all(made)
    assert made.tally.too_old == 1
    assert sum(sums(world, "brightness", 86_400).values()) == 2


def test_poisonous_window_does_not_stop_the_others(world: World) -> None:
    made = rollups(world)
    now_ms = world.clock.now_ms()
    poison = {"x" * 500: 1, "a\0b": 1, "many": 2**80, "less": -5, **{f"m{i}": 1 for i in range(2000)}}
    huge = {"edges": [float(i) for i in range(5000)], "counts": [1] * 5001}
    world.take(up("box-1", [window(1, now_ms, counts=poison, histograms={"huge": huge}), window(2, now_ms)]))
    world.take(up("box-2", [window(1, now_ms)]))
    with world.services.store.write() as connection:  # what an older release may have let in
        changed = tables.telemetry.update().where(tables.telemetry.c.device == "box-2")
        connection.execute(changed.values(body={"started_at_ms": "x"}))
    roll_all(made)
    assert made.tally.unreadable == 1
    assert sum(sums(world, "brightness", 60).values()) == 2
    assert world.count(metric_series) < 300


def test_series_of_one_device_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES_OF_DEVICE", 5)
    made = rollups(world)
    for seq in range(1, 5):
        world.take(up("box-1", [window(seq, world.clock.now_ms(), counts={f"metric{seq}": 1})]))
    roll_all(made)
    assert world.count(metric_series) == 5


def test_crash_before_the_commit_counts_nothing_and_afterwards_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = rollups(world)
    world.take(up("box-1", [window(1, world.clock.now_ms())]))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_pairs", lambda _amount: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.roll()
    assert (world.count(metric_points), made.waiting()) == (0, 1)
    roll_all(made)
    assert sum(sums(world, "brightness", 60).values()) == 2


def test_rows_of_an_older_release_are_added_up_once(tmp_path: Path) -> None:
    world = World(tmp_path / "old")
    world.enrol("box-1")
    world.take(up("box-1", [window(1, world.clock.now_ms())]))
    with world.services.store.write() as connection:
        for table in (rollup_queue, rollup_marks):
            connection.execute(delete(table))
    for _ in range(2):
        roll_all(rollups(world))
    assert sum(sums(world, "brightness", 60).values()) == 2
    world.close()


def test_state_of_a_device_is_sampled_once_a_minute(world: World) -> None:
    made = rollups(world)
    health = Health(uptime_s=1, memory_bytes=5 * 10**8, disk_free_bytes=1, outbox_rows=0, outbox_bytes=0)
    for _ in range(12):
        message = incoming("box-1", "reported", reported(health=health).model_dump_json().encode())
        world.take(message, message)
        world.clock.forward(30)
    roll_all(made)
    assert sum(sums(world, "health.memory_bytes", 3600).values()) in (6, 7)
    assert sums(world, "health.temperature_c", 3600) == {}
    world.clock.forward(3 * 86_400)
    made.let_go()
    assert world.count(health_samples) == 0
