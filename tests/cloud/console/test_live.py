"""Whether a page asks again only when something changed."""

from collections.abc import Callable

import pytest

from cloud.console import live
from tests.browser.sample_rollouts import add_rollout
from tests.clocks import HeldClock
from tests.cloud.console.plant import INTERVAL_S, Plant, ref


def _tag(plant: Plant) -> str:
    with plant.services.store.read() as connection:
        return live.tag(connection, plant.clock.now_ms(), "code")


def test_nothing_new_within_the_minute_keeps_the_tag(plant: Plant, clock: HeldClock) -> None:
    plant.enrol("box-1")
    plant.report("box-1")
    before = _tag(plant)
    clock.forward(2)
    assert _tag(plant) == before


CHANGES: dict[str, Callable[[Plant], object]] = {
    "a decision": lambda plant: plant.up("box-1", [plant.decision("box-1")]),
    "an event": lambda plant: plant.up("box-1", [plant.event("box-1", "camera_lost", "alarm")]),
    "a report at the same millisecond": lambda plant: plant.report("box-2"),
    "a last will": lambda plant: plant.presence("box-1", online=False),
    "a new device": lambda plant: plant.enrol("box-3"),
    "a new bundle": lambda plant: plant.bundle(ref(version="9.0.0")),
    "a rollout": lambda plant: add_rollout(plant, "phone_glass", "1.1.0", "running", 1, 5, {}, ""),
    "an answer": lambda plant: plant.services.reviews.answer("box-1", "box-1-1", 1, answer="pass", reviewer="ada"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_change_of_anything_shown_changes_the_tag(plant: Plant, what: str) -> None:
    for device in ("box-1", "box-2"):
        plant.enrol(device)
    plant.bundle(ref())
    plant.report("box-1")
    plant.up("box-1", [plant.deferral("box-1")])
    before = _tag(plant)
    CHANGES[what](plant)
    assert _tag(plant) != before


def test_device_that_falls_silent_changes_the_tag_without_any_message(plant: Plant, clock: HeldClock) -> None:
    clock.forward(-(clock.now_ms() % live.MINUTE_MS) / 1000)  # so that no new minute begins
    plant.enrol("box-1")
    plant.report("box-1")
    before = _tag(plant)
    clock.forward(3 * INTERVAL_S + 1)
    assert _tag(plant) != before


def test_undone_answer_changes_the_tag_even_if_its_number_is_used_again(plant: Plant) -> None:
    plant.enrol("box-1")
    plant.up("box-1", [plant.deferral("box-1")])
    reviews = plant.services.reviews
    number = reviews.answer("box-1", "box-1-1", 1, answer="pass", reviewer="ada")
    before = _tag(plant)
    reviews.undo(number, who="ada")
    reviews.answer("box-1", "box-1-1", 1, answer="divert", reviewer="ada")
    assert _tag(plant) != before
