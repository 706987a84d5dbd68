"""What devices send is kept once, acknowledged when kept, and never holds up another."""

import asyncio
import functools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from fastapi.responses import JSONResponse

from cloud import tables
from cloud.config import IngestConfig
from cloud.ingest import Incoming, Ingest
from edge.wire.messages import Ack
from tests.cloud.world import RecordingPublisher, World, decision, event, incoming, presence, reported, up
from tests.waiting import until


@pytest.fixture(autouse=True)
def _members(world: World) -> None:
    world.enrol("box-1")
    world.enrol("box-2")


def test_same_batch_again_is_acknowledged_again_and_kept_once(world: World) -> None:
    batch = up("box-1", [decision(1), event(2)])
    assert world.take(batch) == {"box-1": 2}
    assert world.take(batch, batch) == {"box-1": 2}
    assert (world.count(tables.decisions), world.count(tables.events)) == (1, 1)
    assert world.quarantined() == []


def test_batch_beyond_a_hole_is_kept_but_not_acknowledged_past_it(world: World) -> None:
    assert world.take(up("box-1", [event(1), event(2)])) == {"box-1": 2}
    assert world.take(up("box-1", [event(5), event(6)])) == {"box-1": 2}
    assert world.take(up("box-1", [event(4)])) == {"box-1": 2}
    assert world.count(tables.events) == 5
    assert world.take(up("box-1", [event(3)])) == {"box-1": 6}


def test_batches_repeated_and_shuffled_are_each_kept_exactly_once(world: World) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [decision(seq) if seq % 3 else event(seq) for seq in range(1, 301)]
    batches = [up("box-1", rows[start : start + rng.randint(1, 20)]) for start in range(0, 300, 10)]
    batches += [up("box-1", rows[start : start + 10]) for start in range(0, 300, 10)] * 2
    rng.shuffle(batches)
    while batches:
        group, batches = batches[:4], batches[4:]
        world.take(*group)
    assert world.take(up("box-1", rows[:1])) == {"box-1": 300}
    stored = [row.seq for table in (tables.decisions, tables.events) for row in world.rows(table)]
    assert sorted(stored) == list(range(1, 301))


def test_new_incarnation_of_a_device_begins_at_one_again(world: World) -> None:
    assert world.take(up("box-1", [event(1), event(2)])) == {"box-1": 2}
    assert world.take(up("box-1", [event(1)], incarnation="i2")) == {"box-1": 1}
    assert world.count(tables.events) == 3


def test_bad_row_goes_to_quarantine_and_the_rest_is_kept(world: World) -> None:
    assert world.take(up("box-1", [event(1), event(2, name=7), event(3)])) == {"box-1": 3}
    assert [row.seq for row in world.rows(tables.events)] == [1, 3]
    assert world.quarantined()[0].startswith("row 2: event.name")


def test_bad_message_does_not_hold_up_others_in_its_group(world: World) -> None:
    broken = incoming("box-1", "up", b"{")
    assert world.take(up("box-1", [event(1)]), broken, up("box-2", [event(1)])) == {"box-1": 1, "box-2": 1}
    assert len(world.quarantined()) == 1


def test_row_that_the_database_refuses_goes_to_quarantine_and_the_rest_is_kept(world: World) -> None:
    rows = [event(1), event(2, data={"name": "HALF"}), event(3)]
    message = up("box-1", rows)
    broken = Incoming(message.topic, message.payload.replace(b"HALF", b"\\ud800"), False, lambda: None)
    assert world.take(broken, up("box-2", [event(1)])) == {"box-1": 3, "box-2": 1}
    assert [row.seq for row in world.rows(tables.events) if row.device == "box-1"] == [1, 3]
    (reason,) = world.quarantined()
    assert reason.startswith("row 2: cannot be kept")
    assert world.take(broken) == {"box-1": 3}


@pytest.mark.parametrize(
    "poison",
    [
        b'{"x": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"x": ' + b"[" * 150 + b"]" * 150 + b"}",
        b'{"x": ' + b"[" * 400 + b"]" * 400 + b"}",
        b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x": 1e400}',
        b'{"x": -1e400, "y": NaN}',
        b'{"x": ' + b"9" * 4000 + b"}",
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"x": "\\u0000"}',
    ],
    ids=range(10),
)
def test_nothing_that_a_device_can_write_stops_ingest_or_the_console(world: World, poison: bytes) -> None:
    message = up("box-1", [event(1), event(2, data="POISON")])
    state = incoming("box-1", "reported", reported(later="POISON").model_dump_json().encode())
    group = [
        Incoming(one.topic, one.payload.replace(b'"POISON"', poison), False, lambda: None) for one in (message, state)
    ]
    assert world.take(*group, up("box-2", [event(1)]))["box-2"] == 1
    for shown in (world.services.fleet.events("box-1"), world.services.fleet.device("box-1").as_json()):
        JSONResponse(shown)


def test_device_is_heard_under_its_own_name_only(world: World) -> None:
    document = json.dumps({"kind": "up", "device": "box-2", "incarnation": "i1", "rows": [event(1)]})
    assert world.take(incoming("box-1", "up", document.encode())) == {}
    assert world.count(tables.events) == 0
    assert "expected 'box-1'" in world.quarantined()[0]


def test_stranger_and_revoked_device_are_not_heard(world: World) -> None:
    world.services.enrolment.revoke("box-2", who="test")
    assert world.take(up("stranger", [event(1)]), up("box-2", [event(1)])) == {}
    assert sorted(world.quarantined()) == ["box-2 is not in the fleet", "stranger is not in the fleet"]


def test_number_used_twice_for_different_rows_is_on_record(world: World) -> None:
    world.take(up("box-1", [event(1), event(2)]))
    assert world.take(up("box-1", [event(2, detail="another"), event(3)])) == {"box-1": 3}
    assert "used before" in world.quarantined()[0]
    assert [row.detail for row in world.rows(tables.events)] == ["", "", ""]


def test_same_nonsense_again_fills_no_table(world: World) -> None:
    for _ in range(5):
        world.take(incoming("box-1", "up", b"nonsense"))
    assert len(world.quarantined()) == 1


def test_quarantine_is_bounded(tmp_path: Path) -> None:
    world = World(tmp_path / "small", ingest=IngestConfig(quarantine_rows=10))
    for number in range(25):
        world.take(incoming("box-1", "up", f"nonsense {number}".encode()))
    assert [row.payload for row in world.rows(tables.quarantine)] == [f"nonsense {number}" for number in range(15, 25)]
    world.close()


def test_wanted_inputs_are_those_kept_by_the_device_and_waiting_for_a_person(world: World) -> None:
    lost = {**decision(3)["input"], "kept": False}
    rows = [
        decision(1, verdict="defer", action="hand_over", reason="unsure"),
        decision(2),
        decision(3, verdict="defer", action="hand_over", reason="bad_input", input=lost),
        decision(4, reason="audit"),
    ]
    (ack,) = world.parts.ingest.store_group([up("box-1", rows)])
    assert ack.wanted_inputs == [rows[0]["input"]["digest"], rows[3]["input"]["digest"]]


def test_device_that_reports_is_fresh_until_three_intervals_have_passed(world: World) -> None:
    world.take(incoming("box-1", "reported", reported().model_dump_json().encode()))
    heard_ms = world.clock.now_ms()
    world.clock.forward(15)
    assert world.services.fleet.device("box-1").freshness == "fresh"
    world.clock.forward(0.1)
    view = world.services.fleet.device("box-1")
    assert (view.freshness, view.stale_since_ms) == ("stale", heard_ms)


def test_last_will_of_this_boot_makes_it_stale_and_of_an_earlier_boot_changes_nothing(world: World) -> None:
    world.take(presence("box-1", "b1", online=True))
    world.take(presence("box-1", "b2", online=True))
    world.take(presence("box-1", "b1", online=False))
    assert world.services.fleet.device("box-1").freshness == "fresh"
    world.clock.forward(1)
    world.take(presence("box-1", "b2", online=False))
    view = world.services.fleet.device("box-1")
    assert (view.freshness, view.stale_since_ms) == ("stale", world.clock.now_ms())


def test_will_that_came_late_is_taken_back_by_the_next_word_of_the_device(world: World) -> None:
    world.take(presence("box-1", "b1", online=True), presence("box-1", "b1", online=False))
    assert world.services.fleet.device("box-1").freshness == "stale"
    world.take(up("box-1", [event(1)]))
    assert world.services.fleet.device("box-1").freshness == "fresh"


def test_what_the_broker_repeats_does_not_make_a_device_fresh(world: World) -> None:
    payload = reported(sent_at_ms=9).model_dump_json().encode()
    world.take(incoming("box-1", "reported", payload, retained=True))
    view = world.services.fleet.device("box-1")
    assert view.freshness == "unknown"
    assert view.reported is not None
    assert view.reported["sent_at_ms"] == 9


def test_older_state_that_the_broker_repeats_does_not_replace_a_newer_one(world: World) -> None:
    world.take(incoming("box-1", "reported", reported(sent_at_ms=9).model_dump_json().encode()))
    world.take(incoming("box-1", "reported", reported(sent_at_ms=8).model_dump_json().encode(), retained=True))
    view = world.services.fleet.device("box-1")
    assert view.reported is not None
    assert view.reported["sent_at_ms"] == 9


def test_outcome_is_shown_with_its_decision(world: World) -> None:
    outcome = {"kind": "outcome", "seq": 2, "decision_seq": 1, "at_ms": 5, "state": "done", "actuator": "log"}
    world.take(up("box-1", [decision(1, later=1), outcome, decision(3)]))
    newest, oldest = world.services.fleet.decisions("box-1")
    assert (newest["seq"], newest["outcome"]) == (3, None)
    assert oldest["outcome"]["state"] == "done"
    assert oldest["later"] == 1


@pytest.mark.anyio
async def test_acknowledgement_and_release_follow_the_commit(world: World) -> None:
    publisher, released = RecordingPublisher(), list[int]()
    ingest = Ingest(world.services.store, world.services.inputs, world.clock, publisher, IngestConfig(group_wait_ms=0))
    task = asyncio.create_task(ingest.run())
    for seq in range(1, 61):
        message = up("box-1", [event(seq)])
        ingest.submit(Incoming(message.topic, message.payload, False, functools.partial(released.append, seq)))
    await until(lambda: len(released) == 60, 10, "all messages released")
    task.cancel()
    acks = [Ack.model_validate_json(payload) for _, payload, _ in publisher.sent]
    assert acks[-1].stored_through == 60
    assert all(topic == "lineside/1/box-1/ack" and not retain for topic, _, retain in publisher.sent)
    assert released == list(range(1, 61))


def test_message_is_not_acknowledged_while_the_disk_is_full_and_kept_when_there_is_room(world: World) -> None:
    engine = world.services.store.engine
    messages = [up("box-1", [event(seq, detail="x" * 4000) for seq in range(first, first + 50)]) for first in (1, 51)]

    def fill(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # no page beyond those that are there

    engine.dispose()
    sqlalchemy.event.listen(engine, "connect", fill)
    assert world.take(*messages) == {}
    sqlalchemy.event.remove(engine, "connect", fill)
    engine.dispose()
    assert world.count(tables.events) == 0
    assert world.quarantined() == []
    assert world.take(*messages) == {"box-1": 100}


@pytest.mark.anyio
async def test_more_than_may_wait_is_handed_back_at_once_and_kept_when_it_is_sent_again(world: World) -> None:
    publisher, released = RecordingPublisher(), list[int]()
    config = IngestConfig(queue_messages=10, group_wait_ms=0)
    ingest = Ingest(world.services.store, world.services.inputs, world.clock, publisher, config)
    messages = [up("box-1", [event(seq)]) for seq in range(1, 31)]
    for seq, one in enumerate(messages, 1):  # nothing is kept yet: the database is busy
        ingest.submit(Incoming(one.topic, one.payload, False, functools.partial(released.append, seq)))
    assert (released, ingest.tally.dropped, ingest.waiting()) == (list(range(11, 31)), 20, 10)
    assert publisher.sent == []  # handed back is not acknowledged
    task = asyncio.create_task(ingest.run())
    await until(lambda: ingest.waiting() == 0 and len(released) == 30, 10, "what waited")
    for one in messages[10:]:
        ingest.submit(one)
        await until(lambda: ingest.waiting() == 0, 10, "room")
    await until(lambda: Ack.model_validate_json(publisher.sent[-1][1]).stored_through == 30, 10, "all of it")
    task.cancel()
    assert world.count(tables.events) == 30
