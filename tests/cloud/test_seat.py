"""Of several copies one moves rollouts, and who has lost the seat without knowing it changes nothing."""

import pytest

from cloud import audit
from cloud.errors import ConflictError
from cloud.seat import Seat
from tests.cloud.world import World


def test_second_copy_gets_the_seat_only_when_the_first_has_left_it(world: World) -> None:
    store = world.services.store
    first, second = Seat(store, world.clock), Seat(store, world.clock)
    assert first.hold()
    assert first.hold()
    assert second.hold() is not store.is_shared
    first.leave()
    assert second.hold()
    second.leave()


def test_holder_whose_connection_died_can_change_nothing_any_more(world: World) -> None:
    store = world.services.store
    if not store.is_shared:
        pytest.skip("a single control plane has the seat always")
    first, second = Seat(store, world.clock), Seat(store, world.clock)
    assert first.hold()
    with store.write() as connection:
        first.check(connection)
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
        )
    assert second.hold()
    with pytest.raises(ConflictError, match="another copy"), store.write() as connection:
        first.check(connection)
    assert not first.hold()
    with store.read() as connection:
        terms = [row["data"]["term"] for row in audit.rows(connection, what="conductor_seated")]
    assert terms == [2, 1]
    second.leave()


def test_only_the_copy_that_asked_for_the_seat_and_got_it_has_it(world: World) -> None:
    store = world.services.store
    first, second = Seat(store, world.clock), Seat(store, world.clock)
    assert first.is_ours is not store.is_shared, "alone one always has it"
    assert first.hold()
    second.hold()
    assert first.is_ours and second.is_ours is not store.is_shared
    first.leave()
    assert first.is_ours is not store.is_shared
    second.leave()
