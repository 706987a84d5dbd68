"""What devices should be: kept first, published after, never half done."""

import pytest

from cloud import tables
from cloud.errors import NotFoundError
from cloud.fleet import freshness
from edge.wire.base import BundleRef
from edge.wire.messages import Desired, DesiredBundles
from tests.cloud.world import RecordingPublisher, World

REF = BundleRef(name="brightness", version="1.0.0", digest="ab" * 32, size_bytes=3)


def _activate(desired: Desired) -> Desired:
    return desired.model_copy(update={"bundles": {"brightness": DesiredBundles(active=REF)}})


def test_change_raises_the_version_is_kept_and_is_published_retained(world: World) -> None:
    publisher = RecordingPublisher()
    fleet = world.fleet_with(publisher)
    changed = fleet.set_desired("box-1", _activate)
    assert (changed.config_version, changed.issued_at_ms) == (1, world.clock.now_ms())
    assert fleet.desired("box-1") == changed
    ((name, payload, retain),) = publisher.sent
    assert (name, retain) == ("lineside/1/box-1/desired", True)
    assert Desired.model_validate_json(payload) == changed


def test_change_that_changes_nothing_keeps_the_version(world: World) -> None:
    fleet = world.fleet_with(RecordingPublisher())
    first = fleet.set_desired("box-1", _activate)
    assert fleet.set_desired("box-1", _activate) == first


def test_change_that_fails_is_neither_kept_nor_published(world: World) -> None:
    publisher = RecordingPublisher()
    fleet = world.fleet_with(publisher)

    def fail(_desired: Desired) -> Desired:
        raise NotFoundError("no such bundle")

    with pytest.raises(NotFoundError):
        fleet.set_desired("box-1", fail)
    assert (fleet.desired("box-1").config_version, publisher.sent) == (0, [])


def test_fields_of_a_later_release_in_a_desired_state_survive_a_change(world: World) -> None:
    fleet = world.fleet_with(RecordingPublisher())
    fleet.set_desired("box-1", lambda old: Desired(**{**old.model_dump(), "later": {"a": 1}}))
    changed = fleet.set_desired("box-1", _activate)
    assert changed.model_dump()["later"] == {"a": 1}


def test_older_state_never_follows_a_newer_one_to_the_broker(world: World) -> None:
    publisher = RecordingPublisher()
    fleet = world.fleet_with(publisher)
    with world.services.store.write() as connection:
        older = fleet.change_desired(connection, "box-1", _activate)
    newer = fleet.set_desired("box-1", lambda old: old.model_copy(update={"bundles": {}}))
    fleet.publish([older])  # its thread was slower
    assert [Desired.model_validate_json(payload) for _, payload, _ in publisher.sent] == [newer]


def test_all_desired_states_are_published_again_but_not_those_of_revoked_devices(world: World) -> None:
    for name in ("box-1", "box-2", "box-3"):
        world.enrol(name)
    world.services.enrolment.revoke("box-2", who="anna")
    publisher = RecordingPublisher()
    assert world.fleet_with(publisher).republish_all() == 2
    assert sorted(name for name, _, _ in publisher.sent) == ["lineside/1/box-1/desired", "lineside/1/box-3/desired"]


def test_revoked_devices_are_listed_only_when_asked_for(world: World) -> None:
    world.enrol("box-1")
    world.enrol("box-2")
    world.services.enrolment.revoke("box-1", who="anna")
    fleet = world.services.fleet
    assert [view.device for view in fleet.devices()] == ["box-2"]
    assert [view.device for view in fleet.devices(with_revoked=True)] == ["box-1", "box-2"]
    assert world.count(tables.devices) == 2


@pytest.mark.parametrize(
    ("heard_ms", "interval_s", "online", "presence_ms", "now_ms", "expected"),
    [
        (None, None, False, None, 10_000, ("unknown", None)),
        (0, 5.0, True, 1, 10_000, ("unknown", None)),
        (1_000, 5.0, True, 1_000, 16_000, ("fresh", None)),
        (1_000, 5.0, True, 1_000, 16_001, ("stale", 1_000)),
        (1_000, 5.0, False, 2_000, 3_000, ("stale", 2_000)),
        (1_000, 5.0, False, None, 3_000, ("fresh", None)),
        (1_000, None, True, None, 91_000, ("fresh", None)),
        (1_000, None, True, None, 91_001, ("stale", 1_000)),
    ],
)
def test_state_is_said_honestly(
    heard_ms: int | None,
    interval_s: float | None,
    online: bool,
    presence_ms: int | None,
    now_ms: int,
    expected: tuple[str, int | None],
) -> None:
    assert (
        freshness(
            last_heard_at_ms=heard_ms,
            interval_s=interval_s,
            online=online,
            presence_at_ms=presence_ms,
            now_ms=now_ms,
        )
        == expected
    )
