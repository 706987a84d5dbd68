"""What has drifted is told with which, how far, since when, where, and whether decisions moved with it."""

import random
from bisect import bisect_right
from typing import Any

import pytest

from cloud import tables
from cloud.config import DriftConfig
from cloud.telemetry import driftrule
from cloud.telemetry.drift import DriftWatch
from cloud.telemetry.driftreport import StationDrift, report, spread
from cloud.telemetry.driftrule import State, compare_bins, compare_categories, kind_of, step, threshold
from cloud.telemetry.tables import drift_baselines, drift_states
from tests.cloud.telemetry.test_rollups import roll_all, rollups
from tests.cloud.world import World, decision, up

EDGES = [float(edge) for edge in range(20, 240, 20)]
CONFIDENCE = [0.2, 0.4, 0.6, 0.8]
HOUR_MS = 3_600_000
BUNDLE = {"name": "brightness", "version": "1.0.0", "digest": "ab" * 32, "size_bytes": 10}
NEWER = {**BUNDLE, "version": "1.1.0", "digest": "cd" * 32}


def _counts(values: list[float], edges: list[float] = EDGES) -> list[int]:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect_right(edges, value)] += 1
    return counts


class Line:
    """A device that sends one window an hour of pictures about so bright."""

    def __init__(self, world: World, rng: random.Random, device: str = "box-1") -> None:
        self.world, self.rng, self.device, self.seq = world, rng, device, 0
        self.rows: list[dict[str, Any]] = []
        world.enrol(device)

    def hour(self, brightness: float = 120.0, defers: float = 0.05, n: int = 300, **fields: Any) -> None:
        """Let an hour of the world's clock pass with n pictures."""
        self.send(self.world.clock.now_ms(), brightness, defers, n, **fields)
        self.world.clock.forward(3600)

    def send(self, at_ms: int, brightness: float = 120.0, defers: float = 0.05, n: int = 300, **fields: Any) -> None:
        """Send a window that began then."""
        self.seq += 1
        deferred = sum(self.rng.random() < defers for _ in range(n))
        values = [self.rng.gauss(brightness, 25) for _ in range(n)]
        row = {
            "kind": "telemetry",
            "seq": self.seq,
            "station": "glass",
            "model": "brightness",
            "bundle": BUNDLE,
            "started_at_ms": at_ms,
            "ended_at_ms": at_ms + 60_000,
            "counts": {"decisions": n, "verdict.pass": n - deferred, "verdict.defer": deferred},
            "histograms": {"brightness": {"edges": EDGES, "counts": _counts(values)}},
            **fields,
        }
        self.rows.append(row)

    def flush(self) -> None:
        """Let it arrive."""
        if self.rows:
            self.world.take(up(self.device, self.rows))
        self.rows = []


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def line(world: World, rng: random.Random) -> Line:
    """A station whose bundle knows pictures of brightness 120, at the beginning of an hour."""
    reference = {"brightness": {"edges": EDGES, "counts": _counts([rng.gauss(120, 25) for _ in range(500)])}}
    with world.services.store.write() as connection:
        for bundle in (BUNDLE, NEWER):
            row = {name: bundle[name] for name in ("digest", "name", "version", "size_bytes")}
            more = {"published_at_ms": 0, "published_by": "anna", "state": "approved"}
            connection.execute(tables.bundles.insert().values(**row, **more, manifest={"reference": reference}))
    world.clock.forward((HOUR_MS - world.clock.now_ms() % HOUR_MS) / 1000)
    return Line(world, rng)


def look(world: World, *lines: Line) -> list[StationDrift]:
    """Let windows arrive, add up, look, and return what drifts."""
    for line in lines:
        line.flush()
    roll_all(rollups(world))
    world.clock.forward(11 * 60)
    DriftWatch(world.services.store, world.clock, DriftConfig()).look()
    world.clock.forward(-11 * 60)
    with world.services.store.read() as connection:
        return report(connection, world.clock.now_ms())


def test_input_that_moves_is_told_with_how_far_since_when_and_where(world: World, line: Line) -> None:
    for _ in range(6):
        line.hour()
    assert look(world, line) == []
    moved_ms = world.clock.now_ms()
    line.hour(157)
    assert look(world, line) == []  # one hour alone is no drift
    line.hour(157)
    (found,) = look(world, line)
    (moved,) = found.moved
    assert (found.device, found.station, found.site, found.version) == ("box-1", "glass", "hall-1", "1.0.0")
    assert (moved.metric, moved.stage, moved.against, moved.since_ms) == ("brightness", "camera", "bundle", moved_ms)
    assert 0.4 < moved.distance < 0.7
    assert "brightness lies strongly higher than in the bundle's reference: median 1" in moved.words
    assert (found.kind, found.verdicts["defer"][0] < 0.1) == ("data", True)
    for _ in range(2):
        line.hour()
    assert look(world, line) == []


def test_deferrals_that_move_with_the_input_are_told_as_well(world: World, line: Line) -> None:
    for _ in range(5):
        line.hour()
    for _ in range(3):
        line.hour(160, defers=0.4)
    (found,) = look(world, line)
    before, since = found.verdicts["defer"]
    assert before < 0.1 < 0.3 < since
    assert found.kind == "data_reaching_decisions"
    assert "deferrals or labels" in found.kind_words


def test_answers_that_move_alone_against_the_first_week_are_concept_drift(world: World, line: Line) -> None:
    for _ in range(24 * 8):
        line.hour(n=60)
    for _ in range(30):
        line.hour(n=60, defers=0.6)
    (found,) = look(world, line)
    assert [(moved.metric, moved.against) for moved in found.moved] == [("verdicts", "first_week")]
    assert "defer comes" in found.moved[0].words
    assert found.kind == "concept"


def test_day_and_night_are_no_drift_against_the_own_first_week(world: World, line: Line) -> None:
    for hour in range(24 * 9):
        line.hour(100 if hour % 24 < 12 else 140, n=100, bundle=None)
    assert look(world, line) == []
    for _ in range(24):
        line.hour(180, n=100, bundle=None)
    (found,) = look(world, line)
    assert {moved.against for moved in found.moved} == {"first_week"}


def test_backlog_of_a_device_that_was_away_is_looked_at_hour_by_hour(world: World, line: Line) -> None:
    for _ in range(4):
        line.hour()
    assert look(world, line) == []
    away_ms = world.clock.now_ms()
    world.clock.forward(30 * 86_400)
    for hour in range(10):
        line.send(away_ms + hour * HOUR_MS, 160)
    (found,) = look(world, line)
    assert found.since_ms == away_ms
    assert {row.looked_through_ms for row in world.rows(drift_states)} == {away_ms + 8 * HOUR_MS}  # the last may grow


def test_new_bundle_begins_anew(world: World, line: Line) -> None:
    for _ in range(4):
        line.hour(157)
    assert len(look(world, line)) == 1
    line.hour(120, bundle=NEWER)
    assert look(world, line) == []


def test_hour_is_looked_at_once_and_no_look_is_lost_with_the_process(world: World, line: Line) -> None:
    for _ in range(5):
        line.hour(157)
    first = look(world, line)
    again = look(world, line)
    assert first == again
    watch = DriftWatch(world.services.store, world.clock, DriftConfig())
    world.clock.forward(660)
    assert watch.look() == 0


def test_spread_says_on_how_many_of_the_watched_devices(world: World, line: Line, rng: random.Random) -> None:
    lines = [line, Line(world, rng, "box-2"), Line(world, rng, "box-3")]
    start_ms = world.clock.now_ms()
    for hour in range(4):
        for number, one in enumerate(lines):
            one.send(start_ms + hour * HOUR_MS, 170 if number < 2 else 120)
        world.clock.forward(3600)
    found = look(world, *lines)
    with world.services.store.read() as connection:
        (most,) = spread(connection, found)
    assert (most.metric, most.devices, most.of) == ("brightness", ["box-1", "box-2"], 3)


def test_people_who_contradict_more_often_make_it_concept_drift_too(world: World, line: Line) -> None:
    for _ in range(5):
        line.hour()
    moved_ms = world.clock.now_ms()
    for _ in range(3):
        line.hour(157)
    line.flush()
    rows, reviews = [], []
    for seq in range(line.seq + 1, line.seq + 401):
        after = seq % 2 == 0
        at_ms = moved_ms + 5 if after else moved_ms - HOUR_MS
        rows.append(decision(seq, at_ms=at_ms, bundle=BUNDLE, reason="audit", audit_probability=0.1))
        answer = "divert" if after and seq % 4 == 0 else "pass"
        who = {"reviewer": "eva", "note": "", "label": None, "at_ms": at_ms}
        reviews.append({"device": "box-1", "incarnation": "i1", "seq": seq, "answer": answer, **who})
    world.take(up("box-1", rows))
    with world.services.store.write() as connection:
        connection.execute(tables.reviews.insert(), reviews)
    (found,) = look(world, line)
    assert found.wrong == (0.0, 0.5)
    assert found.kind == "both"


def test_first_week_is_kept_when_its_hours_are_gone(world: World, line: Line) -> None:
    for _ in range(24 * 8):
        line.hour(n=60)
    look(world, line)
    (kept, _) = sorted(world.rows(drift_baselines), key=lambda row: row.metric)
    assert kept.frozen
    assert sum(count for _, count in kept.bins) == 7 * 24 * 60


def test_false_alarm_rate_holds_by_simulation(rng: random.Random) -> None:
    alpha, many = 0.05, 2000
    raised = 0
    for _ in range(many):
        then = _counts([rng.gauss(120, 25) for _ in range(100)])
        now = _counts([rng.gauss(120, 25) for _ in range(80)])
        found = compare_bins(now, then, alpha)
        assert found is not None
        raised += found.distance >= found.threshold
    assert raised / many <= alpha


def test_share_of_one_category_is_compared_with_all_their_number_in_mind() -> None:
    same = compare_categories({"a": 500, "b": 500}, {"a": 480, "b": 520}, 0.01)
    moved = compare_categories({"a": 900, "b": 100}, {"a": 500, "b": 500}, 0.01)
    assert same is not None
    assert moved is not None
    assert (same.differs, moved.differs, moved.where) == (False, True, "a")
    assert compare_categories({"a": 10}, {"a": 500}, 0.01) is None
    assert threshold(100, 100, 0.01, categories=9) > threshold(100, 100, 0.01)


def test_state_needs_two_in_a_row_to_rise_and_to_fall() -> None:
    differs = driftrule.Comparison(0.5, 0.1, 100, 100, 1, gained=True)
    same = driftrule.Comparison(0.05, 0.1, 100, 100, 1, gained=True)
    state = State()
    seen = []
    for hour, one in enumerate([differs, same, differs, differs, same, differs, same, same]):
        state = step(state, one, hour)
        seen.append((state.drifting, state.since_ms))
    assert seen == [(False, None)] * 3 + [(True, 2)] * 4 + [(False, None)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "errors", "kind"),
    [
        (True, False, None, "data"),
        (True, True, False, "data_reaching_decisions"),
        (True, True, True, "both"),
        (False, True, None, "concept"),
        (False, False, True, "concept"),
        (False, False, None, None),
    ],
)
def test_kind_of_drift(inputs: bool, outputs: bool, errors: bool | None, kind: str | None) -> None:
    assert kind_of(inputs=inputs, outputs=outputs, errors=errors) == kind
