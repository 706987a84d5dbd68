"""Rollouts conducted on the real tables, with devices that speak the real messages."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

import cloud
from cloud import tables
from cloud.conductor import Conductor
from cloud.errors import ConflictError, InvalidError, NotFoundError
from cloud.fleet import DeviceView, Fleet
from cloud.plans import PlanShape, parse_plan
from tests.cloud.line import BAD, GOOD, MODEL, OLD, Device, Line, Quality, ref
from tests.waiting import until

DEMO_PLAN = parse_plan((Path(cloud.__file__).parent / "demo_plan.toml").read_text())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "cloud", [Device(f"box-{i}") for i in (1, 2, 3)])
    made.second()
    yield made
    made.close()


def start(line: Line, version: str = "1.1.0", shape: PlanShape = DEMO_PLAN) -> str:
    return line.book.start(MODEL, version, shape, who="ann", why="less glare").id


def status(line: Line, rollout: str) -> str:
    return line.book.rollout(rollout).state.status


def serving(line: Line) -> set[str]:
    return {device.serving.version for device in line.devices}


def test_a_good_version_reaches_all_boxes_within_half_a_minute(line: Line) -> None:
    for _ in range(20):
        line.second()
    rollout = start(line)
    took_s = line.until(lambda: status(line, rollout) == "done", 60)
    print("done after", took_s, "s")
    assert took_s <= 40
    assert serving(line) == {"1.1.0"}
    default = line.services.registry.default(MODEL)
    assert default is not None
    assert default.version == "1.1.0", "devices that enrol later get it too"
    steps = [entry["step"] for entry in line.book.lines(rollout)]
    assert steps[0] == "started"
    assert steps[-1] == "finished"
    assert steps.count("stage_entered") == 2
    assert all(entry["reason"] for entry in line.book.lines(rollout))


def test_a_bad_version_is_taken_back_by_itself_from_the_one_box_that_had_it(line: Line) -> None:
    for _ in range(10):
        line.second()
    rollout = start(line, "1.2.0")
    took_s = line.until(lambda: status(line, rollout) == "rolled_back", 60)
    print("taken back after", took_s, "s")
    assert sum(BAD.digest in device.slots for device in line.devices) == 1
    line.second()
    assert serving(line) == {"1.0.0"}
    assert line.services.fleet.desired("box-1").bundles[MODEL].active == OLD
    kept = line.book.rollout(rollout)
    assert "wrong in" in kept.state.why
    with line.services.store.read() as connection:
        rows = connection.execute(select(tables.audit_log).order_by(tables.audit_log.c.id)).all()
    moves = [(row.who, row.what) for row in rows if row.what.startswith("rollout_")]
    assert moves == [("ann", "rollout_started"), ("conductor", "rollout_rolled_back")]


def test_a_version_that_crashes_on_a_box_is_taken_back_at_once(line: Line) -> None:
    for device in line.devices:
        device.crashes = True
    rollout = start(line)
    line.until(lambda: status(line, rollout) == "rolled_back", 10)
    assert "went back by itself: the model's process died" in line.book.rollout(rollout).state.why


def test_a_box_that_refuses_is_named_and_another_is_asked(line: Line) -> None:
    shape = DEMO_PLAN.model_copy(update={"max_refused_share": 0.34})
    rollout = start(line, shape=shape)
    line.conductor.look()
    asked = line.book.rollout(rollout).state.with_role("candidate")
    for device in line.devices:
        device.refuses = "golden example 2 differs" if device.name in asked else ""
    line.until(lambda: status(line, rollout) == "done", 90)
    kept = line.book.rollout(rollout).state
    assert kept.with_role("refused") == asked
    assert "golden example 2 differs" in kept.members[asked[0]].why
    assert line.services.fleet.desired(asked[0]).bundles[MODEL].active == OLD


def test_a_box_that_is_offline_joins_when_it_comes_back(line: Line) -> None:
    gone = line.devices[2]
    gone.online = False
    for _ in range(5):
        line.second()
    rollout = start(line)
    line.until(lambda: status(line, rollout) == "done", 90)
    assert gone.serving == OLD
    gone.online = True
    line.until(lambda: gone.serving == GOOD, 5)


def test_a_paused_rollout_stays_where_it_is_until_it_is_resumed(line: Line) -> None:
    rollout = start(line)
    line.second()
    line.book.pause(rollout, who="bob", why="shift change")
    for _ in range(20):
        line.second()
    kept = line.book.rollout(rollout)
    assert (kept.state.status, kept.state.stage) == ("paused", 0)
    assert any("paused" in reason for reason in kept.state.waiting_for)
    with pytest.raises(ConflictError, match="is paused"):
        line.book.pause(rollout, who="bob", why="again")
    line.book.resume(rollout, who="bob", why="go on")
    line.until(lambda: status(line, rollout) == "done", 60)


def test_an_aborted_rollout_sends_the_boxes_back_at_once(line: Line) -> None:
    rollout = start(line)
    line.until(lambda: "1.1.0" in serving(line), 10)
    line.book.abort(rollout, who="bob", why="wrong labels")
    line.second()
    assert serving(line) == {"1.0.0"}
    assert status(line, rollout) == "aborted"
    with pytest.raises(ConflictError, match="aborted"):
        line.book.resume(rollout, who="bob", why="changed my mind")


def test_the_control_plane_may_be_killed_between_any_two_seconds(tmp_path: Path) -> None:
    line = Line(tmp_path / "cloud", [Device(f"box-{i}") for i in (1, 2, 3)])
    line.second()
    rollout = start(line)

    def reborn() -> bool:
        line.close()
        line.open()
        return status(line, rollout) != "running"

    line.until(reborn, 90)
    assert status(line, rollout) == "done"
    steps = [entry["step"] for entry in line.book.lines(rollout)]
    assert steps.count("stage_entered") == 2
    assert steps.count("finished") == 1
    line.close()


def test_a_desired_state_that_was_lost_is_set_right_at_the_next_look(line: Line) -> None:
    rollout = start(line)
    line.conductor.look()
    chosen = line.book.rollout(rollout).state.with_role("candidate")[0]
    with line.services.store.write() as connection:
        connection.execute(tables.desired.delete().where(tables.desired.c.device == chosen))
    line.conductor.look()
    assert line.services.fleet.desired(chosen).bundles[MODEL].active == GOOD


def test_looking_again_without_news_publishes_nothing_new(line: Line) -> None:
    start(line)
    line.conductor.look()
    before = [line.services.fleet.desired(device.name).config_version for device in line.devices]
    line.conductor.look()
    assert [line.services.fleet.desired(device.name).config_version for device in line.devices] == before


def test_a_second_rollout_of_the_model_is_refused_while_one_is_open(line: Line) -> None:
    rollout = start(line)
    with pytest.raises(ConflictError, match=rollout):
        start(line, "1.2.0")
    line.book.abort(rollout, who="ann", why="make room")
    start(line, "1.2.0")


def test_what_cannot_be_rolled_out_is_refused_with_a_reason(line: Line) -> None:
    with pytest.raises(NotFoundError, match=r"9\.9\.9"):
        start(line, "9.9.9")
    with pytest.raises(ConflictError, match="already"):
        start(line, "1.0.0")
    with pytest.raises(InvalidError, match="no device"):
        start(line, shape=parse_plan("[cohort]\nsites = ['nowhere']"))
    line.publish(ref("1.3.0"), state="retired")
    with pytest.raises(ConflictError, match="retired"):
        start(line, "1.3.0")
    with pytest.raises(NotFoundError, match="no rollout"):
        line.book.rollout("r-1")


@pytest.mark.parametrize(("deferral", "ending"), [(0.1, "done"), (0.9, "rolled_back")])
def test_blue_green_turns_all_boxes_at_once_and_back_at_once(line: Line, deferral: float, ending: str) -> None:
    line.qualities[GOOD.digest] = Quality(deferral=deferral)
    for _ in range(20):
        line.second()
    gate = "[[stages.gates]]\nmetric = 'deferral'\nmargin = 0.25\n"
    stages = "[[stages]]\nkind = 'shadow'\nmin_s = 3\n[[stages]]\nkind = 'switch'\nmin_s = 2\n"
    rollout = start(line, shape=parse_plan("strategy = 'blue_green'\n" + stages + gate))
    seen: list[set[str]] = []

    def ended() -> bool:
        seen.append(serving(line))
        return status(line, rollout) == ending

    line.until(ended, 60)
    line.second()
    assert all(len(versions) == 1 for versions in [*seen, serving(line)])
    assert serving(line) == ({"1.1.0"} if ending == "done" else {"1.0.0"})


def test_a_rollout_of_one_site_leaves_the_other_alone_and_is_no_default(tmp_path: Path) -> None:
    line = Line(tmp_path / "cloud", [Device(f"box-{i}", site="hall-1" if i < 4 else "hall-2") for i in range(1, 6)])
    line.second()
    shape = parse_plan(
        (Path(cloud.__file__).parent / "demo_plan.toml").read_text() + "\n[cohort]\nsites = ['hall-1']\n"
    )
    rollout = start(line, shape=shape)
    line.until(lambda: status(line, rollout) == "done", 90)
    assert [device.serving.version for device in line.devices] == ["1.1.0"] * 3 + ["1.0.0"] * 2
    assert line.services.registry.default(MODEL) is None
    line.close()


def test_a_rollout_that_cannot_be_read_does_not_stop_the_others(line: Line) -> None:
    spoilt = start(line)
    with line.services.store.write() as connection:
        table = tables.rollouts
        connection.execute(table.update().where(table.c.id == spoilt).values(state={"rollout": spoilt}))
    rollout = start(line)
    line.second()
    assert line.book.rollout(rollout).state.stage == 0


def test_the_conductor_looks_again_and_again_until_it_is_stopped(line: Line) -> None:
    rollout = start(line)

    async def watch() -> None:
        conductor = asyncio.create_task(line.conductor.run())
        await until(lambda: line.book.rollout(rollout).state.stage == 0, 30, "the first look")
        line.clock.jump(1)  # the wall clock only: by the other one the conductor rests
        await until(lambda: line.book.rollout(rollout).state.stage_elapsed_ms > 0, 30, "the second look")
        conductor.cancel()
        await asyncio.wait([conductor])

    asyncio.run(watch())


def test_a_pause_in_the_middle_of_a_look_is_not_overwritten(line: Line) -> None:
    rollout = start(line)

    class MeanwhilePaused(Fleet):
        def devices(self, *, with_revoked: bool = False) -> list[DeviceView]:
            if status(line, rollout) == "running":
                line.book.pause(rollout, who="bob", why="wait")
            return super().devices(with_revoked=with_revoked)

    fleet = MeanwhilePaused(line.services.store, line.clock, line.parts.link)
    conductor = Conductor(dataclasses.replace(line.services, fleet=fleet))
    assert conductor.look() == []
    assert status(line, rollout) == "paused"
    conductor.look()
    assert status(line, rollout) == "paused"
