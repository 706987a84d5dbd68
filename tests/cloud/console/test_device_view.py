"""One device's page."""

from cloud.console.views.device import ChartGroup, DevicePage, device_page
from edge.wire.messages import Refusal
from edge.wire.rows import UNIT_EDGES
from tests.clocks import HeldClock
from tests.cloud.console.plant import AnyRow, Plant, histogram, ref


def _page(plant: Plant, device: str = "box-1") -> DevicePage:
    with plant.services.store.read() as connection:
        page = device_page(connection, device, plant.clock.now_ms())
    assert page is not None
    return page


def _group(plant: Plant) -> ChartGroup:
    (group,) = _page(plant).groups
    return group


def test_device_that_never_enrolled_has_no_page(plant: Plant) -> None:
    with plant.services.store.read() as connection:
        assert device_page(connection, "nobody", plant.clock.now_ms()) is None


def test_refusals_are_shown_newest_first(plant: Plant) -> None:
    plant.enrol("box-1")
    refusals = [
        Refusal(bundle=ref(), at_ms=1, reason="cut short"),
        Refusal(bundle=ref(version="1.1.0"), at_ms=2, reason="signature"),
    ]
    plant.report("box-1", refusals=refusals)
    assert [(r.bundle, r.reason) for r in _page(plant).refusals] == [
        ("phone_glass 1.1.0", "signature"),
        ("phone_glass 1.0.0", "cut short"),
    ]


def test_metric_far_from_the_reference_lies_outside_of_its_band(plant: Plant, clock: HeldClock) -> None:
    reference = histogram(UNIT_EDGES, [0.42, 0.47, 0.48, 0.52, 0.53] * 20)
    plant.bundle(ref(), reference={"brightness": reference.model_dump()})
    plant.enrol("box-1")
    for value in (0.47, 0.47, 0.2):
        clock.forward(10)
        plant.up("box-1", [plant.telemetry("box-1", {"brightness": histogram(UNIT_EDGES, [value] * 40)})])
    (chart,) = _group(plant).charts
    assert chart.trend.outside
    assert chart.distribution is not None
    assert chart.drift is None, "whether it is a drift is the device's to say"
    told = {"station": "belt", "model": "phone_glass", "data": {"metric": "brightness"}}
    plant.up("box-1", [plant.event("box-1", "drift_raised", "warning", detail="dark", **told)])
    (chart,) = _group(plant).charts
    assert chart.drift is not None
    assert chart.drift.detail == "dark"


def test_bundle_that_is_not_in_the_registry_has_no_reference_here(plant: Plant) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.telemetry("box-1", {"brightness": histogram(UNIT_EDGES, [0.5])})])
    group = _group(plant)
    assert not group.has_reference
    assert [(c.metric, c.trend.band_top, c.distribution) for c in group.charts] == [("brightness", None, None)]


def test_windows_without_a_value_are_left_out(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    rows: list[AnyRow] = [plant.telemetry("box-1", {"brightness": histogram(UNIT_EDGES, [])})]
    plant.up("box-1", rows)
    assert _group(plant).charts == []


def test_distribution_of_now_holds_only_windows_of_the_bundle_that_serves(plant: Plant, clock: HeldClock) -> None:
    new = ref(version="1.1.0")
    reference = histogram(UNIT_EDGES, [0.5] * 50)
    plant.bundle(new, reference={"brightness": reference.model_dump()})
    plant.enrol("box-1")
    for bundle, value in ((ref(), 0.1), (new, 0.9)):
        clock.forward(10)
        plant.up("box-1", [plant.telemetry("box-1", {"brightness": histogram(UNIT_EDGES, [value] * 9)}, bundle=bundle)])
    (chart,) = _group(plant).charts
    assert chart.median is not None
    assert chart.median > 0.85


def test_latency_comes_first_and_its_steps_are_left_out(plant: Plant) -> None:
    plant.enrol("box-1")
    counted = {
        name: histogram([1.0, 2.0], [1.5])
        for name in ("brightness", "latency_ms.infer", "latency_ms.total", "confidence")
    }
    plant.up("box-1", [plant.telemetry("box-1", counted)])
    assert [c.metric for c in _group(plant).charts] == ["latency_ms.total", "confidence", "brightness"]
