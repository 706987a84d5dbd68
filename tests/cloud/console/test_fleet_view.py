"""The fleet at a glance."""

from cloud.console.views import fleet as fleet_view
from cloud.console.views.fleet import DeviceLine, Fleet
from edge.wire.messages import SlotReport, StationReport
from tests.clocks import HeldClock
from tests.cloud.console.plant import INTERVAL_S, AnyRow, Plant, ref


def _fleet(plant: Plant) -> Fleet:
    with plant.services.store.read() as connection:
        return fleet_view.fleet(connection, plant.clock.now_ms())


def _line(plant: Plant, device: str = "box-1") -> DeviceLine:
    return next(line for line in _fleet(plant).devices if line.device == device)


def test_device_that_only_enrolled_is_unknown(plant: Plant) -> None:
    plant.enrol("box-1")
    line = _line(plant)
    assert (line.freshness.state, line.freshness.heard_at_ms, line.stations, line.recent.n) == ("unknown", None, [], 0)
    assert line.recent.deferral_share is None, "no decisions are no zero"


def test_silence_for_three_intervals_makes_a_device_stale_since_it_was_heard(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.report("box-1")
    heard_ms = clock.now_ms()
    clock.forward(3 * INTERVAL_S)
    assert _line(plant).freshness.state == "fresh"
    clock.forward(0.5)
    freshness = _line(plant).freshness
    assert (freshness.state, freshness.since_ms) == ("stale", heard_ms)


def test_last_will_makes_a_device_stale_at_once(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.report("box-1")
    clock.forward(1)
    plant.presence("box-1", online=False)
    freshness = _line(plant).freshness
    assert (freshness.state, freshness.since_ms, freshness.why) == ("stale", clock.now_ms(), "its connection ended")


def test_recent_figures_count_only_the_last_minutes(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.deferral("box-1") for _ in range(50)])
    clock.forward(fleet_view.RECENT_MS / 1000 + 1)
    latencies = [{"total": float(ms)} for ms in range(1, 11)]
    rows: list[AnyRow] = [plant.decision("box-1", latency_ms=latency) for latency in latencies[:8]]
    plant.up("box-1", [*rows, *(plant.deferral("box-1", latency_ms=latency) for latency in latencies[8:])])
    recent = _line(plant).recent
    assert (recent.n, recent.verdicts, recent.deferral_share) == (10, {"pass": 8, "defer": 2}, 0.2)
    assert (recent.p50_ms, recent.p99_ms) == (5.0, 10.0)
    assert recent.per_minute == 1.0


def test_busy_device_is_rated_by_the_span_of_its_newest_decisions(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    rows: list[AnyRow] = []
    for _ in range(fleet_view.SAMPLE + 100):
        clock.forward(0.1)
        rows.append(plant.decision("box-1"))
    plant.up("box-1", rows)
    recent = _line(plant).recent
    assert recent.n == fleet_view.SAMPLE
    assert recent.per_minute is not None
    assert abs(recent.per_minute - 600) < 5


def test_report_is_shown_as_slots_and_stations(plant: Plant) -> None:
    plant.enrol("box-1")
    slots = [
        SlotReport(bundle=ref(), state="good", since_ms=1),
        SlotReport(bundle=ref(version="1.1.0"), state="bad", since_ms=2, reason="crashed twice"),
    ]
    station = StationReport(model="phone_glass", mode="assist", serving=ref(), runtime="onnx", problem="camera is away")
    plant.report("box-1", slots={"phone_glass": slots}, stations={"belt": station})
    line = _line(plant)
    assert [(s.version, s.state, s.reason) for s in line.slots] == [
        ("1.0.0", "good", None),
        ("1.1.0", "bad", "crashed twice"),
    ]
    assert [(s.station, s.version, s.mode, s.problem) for s in line.stations] == [
        ("belt", "1.0.0", "assist", "camera is away")
    ]


def test_clock_that_is_off_by_minutes_is_said(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.report("box-1")
    assert _line(plant).clock_ahead_ms is None
    plant.report("box-1", sent_at_ms=clock.now_ms() + 240_000)
    assert _line(plant).clock_ahead_ms == 240_000


def test_revoked_device_is_not_part_of_the_fleet(plant: Plant) -> None:
    plant.enrol("box-1")
    plant.enrol("box-2")
    with plant.services.store.write() as connection:
        connection.exec_driver_sql("UPDATE devices SET revoked_at_ms = 1 WHERE device = 'box-1'")
    assert [line.device for line in _fleet(plant).devices] == ["box-2"]


def test_fleet_counts_its_states_and_says_when_it_is_cut(plant: Plant) -> None:
    for number in range(3):
        plant.enrol(f"box-{number}")
    plant.report("box-0")
    fleet = _fleet(plant)
    assert (fleet.states, fleet.cut) == ({"fresh": 1, "unknown": 2}, False)
