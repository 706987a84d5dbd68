"""Which warnings still stand."""

from typing import Any

from cloud.console.views.alarms import Alarm, condensed, standing
from tests.clocks import HeldClock
from tests.cloud.console.plant import Plant

BELT = {"station": "belt", "model": "phone_glass"}


def _raise(plant: Plant, name: str, metric: str = "brightness", severity: str = "warning", **changes: Any) -> None:
    told = {"detail": f"{metric} differs", "data": {"metric": metric}, **BELT, **changes}
    plant.up("box-1", [plant.event("box-1", name, severity, **told)])


def _standing(plant: Plant) -> list[Alarm]:
    with plant.services.store.read() as connection:
        return standing(connection, plant.clock.now_ms())


def test_raised_drift_stands_until_it_is_cleared(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    _raise(plant, "drift_raised")
    clock.forward(3 * 3600)
    assert [(a.name, a.metric, a.is_drift) for a in _standing(plant)] == [("drift_raised", "brightness", True)]
    _raise(plant, "drift_cleared", severity="info")
    assert _standing(plant) == []


def test_clearing_one_metric_leaves_the_other_standing(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    _raise(plant, "drift_raised", "brightness")
    _raise(plant, "drift_raised", "sharpness")
    clock.forward(60)
    _raise(plant, "drift_cleared", "brightness", severity="info")
    assert [a.metric for a in _standing(plant)] == ["sharpness"]


def test_drift_raised_again_after_clearing_stands(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    for name, severity in (("drift_raised", "warning"), ("drift_cleared", "info"), ("drift_raised", "warning")):
        clock.forward(60)
        _raise(plant, name, severity=severity)
    assert len(_standing(plant)) == 1


def test_drift_of_an_earlier_start_of_the_daemon_no_longer_stands(plant: Plant) -> None:
    plant.enrol("box-1")
    _raise(plant, "drift_raised", boot_id="boot-0")
    plant.report("box-1", boot_id="boot-1")
    assert _standing(plant) == []


def test_lost_source_stands_until_it_is_found(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.event("box-1", "source_lost", "alarm", station="belt", detail="no camera")])
    clock.forward(2 * 3600)
    assert [a.name for a in _standing(plant)] == ["source_lost"]
    plant.up("box-1", [plant.event("box-1", "source_found", station="belt")])
    assert _standing(plant) == []


def test_drift_ends_with_another_bundle_and_other_states_do_not(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    _raise(plant, "drift_raised")
    plant.up("box-1", [plant.event("box-1", "source_lost", "alarm", **BELT)])
    clock.forward(5)
    plant.up("box-1", [plant.event("box-1", "bundle_opened", **BELT)])
    assert [a.name for a in _standing(plant)] == ["source_lost"]


def test_fact_is_shown_for_an_hour(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.event("box-1", "bundle_refused", "warning", detail="cut short")])
    clock.forward(3599)
    assert [a.name for a in _standing(plant)] == ["bundle_refused"]
    clock.forward(2)
    assert _standing(plant) == []


def test_same_warning_many_times_is_one_line_with_its_number(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    for number in range(5):
        clock.forward(1)
        plant.up("box-1", [plant.event("box-1", "deadline_missed", "warning", detail=f"late {number}")])
    (alarm,) = _standing(plant)
    assert (alarm.times, alarm.detail, alarm.last_ms - alarm.first_ms) == (5, "late 4", 4000)


def test_alarms_stand_before_warnings_and_information_not_at_all(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    for name, severity in (("disk_full", "alarm"), ("camera_lost", "warning"), ("daemon_started", "info")):
        clock.forward(1)
        plant.up("box-1", [plant.event("box-1", name, severity)])
    assert [a.name for a in _standing(plant)] == ["disk_full", "camera_lost"]


def test_lamp_that_dims_is_one_line_for_all_its_metrics(plant: Plant) -> None:
    plant.enrol("box-1")
    for metric in ("sharpness", "brightness"):
        _raise(plant, "drift_raised", metric)
    (alarm,) = condensed(_standing(plant))
    assert alarm.metric == "brightness, sharpness"
    assert "brightness differs" in alarm.detail and "sharpness differs" in alarm.detail
