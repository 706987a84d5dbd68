"""Plain messages kept together end in the same tables as the same messages kept one by one."""

import random
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cloud import tables
from cloud.fleet import missed_by
from cloud.ingest import Incoming
from edge.wire.messages import DesiredBundles
from tests.cloud.world import World, decision, event, incoming, presence, reported, up

KEPT = (tables.decisions, tables.events, tables.streams, tables.device_state)


def _traffic(rng: random.Random) -> list[Incoming]:
    """Return what three devices say, repeats, holes and bad rows among it."""
    said: list[Incoming] = []
    for device in ("box-1", "box-2", "box-3"):
        rows = [decision(seq) if seq % 3 else event(seq) for seq in range(1, 61)]
        batches = [up(device, rows[first : first + 10]) for first in range(0, 60, 10)]
        said += batches + [rng.choice(batches) for _ in range(3)]
        said += [
            presence(device, "b1", online=True),
            incoming(device, "reported", reported(device).model_dump_json().encode()),
        ]
        said.append(up(device, [event(61), event(62, name=7), event(63)]))
    rng.shuffle(said)
    return [*said, up("stranger", [event(1)])]


def _content(world: World) -> list[list[Any]]:
    with world.services.store.read() as connection:
        return [sorted(map(repr, connection.execute(select(table)))) for table in KEPT]


def test_group_leaves_the_same_as_its_messages_one_by_one(world: World, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    said = _traffic(random.Random(seed))
    other = World(tmp_path / "other")
    for one in (world, other):
        for device in ("box-1", "box-2", "box-3"):
            one.enrol(device)
    for first in range(0, len(said), 8):
        world.take(*said[first : first + 8])
    for message in said:
        other.take(message)
    assert _content(world) == _content(other)
    assert sorted(world.quarantined()) == sorted(other.quarantined())
    other.close()


def test_device_behind_its_desired_state_is_told_again(world: World) -> None:
    world.enrol("box-1")
    fleet = world.services.fleet
    fleet.set_desired("box-1", lambda old: old.model_copy(update={"bundles": {"glass": DesiredBundles()}}))
    version = fleet.desired("box-1").config_version
    store = world.services.store
    assert [one.config_version for one in missed_by(store, [reported(config_version=version - 1)])] == [version]
    assert missed_by(store, [reported(config_version=version)]) == []
    world.services.enrolment.revoke("box-1", who="test")
    assert missed_by(store, [reported(config_version=version - 1)]) == []
