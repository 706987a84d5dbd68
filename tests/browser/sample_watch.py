"""What is watched, for the sample plant: telemetry added up, alerts that fire, a silence, a switch of all at once."""

from cloud.alerts.book import AlertBook
from cloud.alerts.watch import AlertWatch
from cloud.plans import Plan, PlanShape
from cloud.rollout_state import Member, RolloutState
from cloud.telemetry.keeper import TelemetryKeeper
from tests.cloud.console.plant import Plant, ref

SWITCHED_MS = (0, 240, 310, 420, 530, 2100)
"""When each device switched, after the first."""
BACK_MS = (900, 1100, 1150, 1300, 1900, 3400)
"""When each was back, after it was decided."""


def add_watch(plant: Plant) -> None:
    """Add up what has come, and look at every rule, as the control plane does all the time."""
    keeper = TelemetryKeeper(plant.services.store, plant.clock, plant.services.config)
    while keeper.turn():
        pass
    AlertWatch(plant.services.store, plant.clock, plant.services.fleet, plant.services.watched).look()
    book = AlertBook(plant.services.store, plant.clock)
    firing = book.alerts()
    if firing:
        book.acknowledge(firing[-1]["id"], who="ada", why="the lamp of hall 1 is ordered")
    book.silence(rule="device-stale", subject="box-3", for_s=8 * 3600, who="ada", why="hall 2 is rebuilt")


def add_switch(plant: Plant, *, taken_back: bool) -> str:
    """Put a blue/green rollout into the plant whose devices have switched, and maybe went back; return its identity."""
    candidate, old, now_ms = ref("gearwheel", "2.0.0"), ref("gearwheel", "1.0.0"), plant.clock.now_ms()
    shape = PlanShape(strategy="blue_green")
    plan = Plan.of(shape, model=candidate.name, version=candidate.version, digest=candidate.digest)
    boxes = [f"gear-{number}" for number in range(1, 1 + len(SWITCHED_MS))]
    because = (
        "failed in 31 of 40 (77.5 %) decisions of the candidate, 0 of 52 (0.0 %) before; surely more than 0.2 points"
    )
    why = f"gearwheel 2.0.0 is taken back: {because}" if taken_back else "every device of the cohort runs it"
    state = RolloutState(
        rollout="gearwheel-2.0.0-77aa01",
        candidate=candidate,
        seed=1,
        started_at_ms=now_ms - 120_000,
        status="rolled_back" if taken_back else "done",
        stage=1,
        members={box: Member(role="candidate", stratum="hall-3, box", previous=old, staged=True) for box in boxes},
        why=why,
    )
    decided_ms = now_ms - 30_000
    last = (decided_ms, "rolled_back" if taken_back else "finished", why)
    plant.rollout(plan, state, [(now_ms - 60_000, "stage_entered", "stage 2 of 2, switch of all devices"), last])
    for box, after_ms, back_ms in zip(boxes, SWITCHED_MS, BACK_MS, strict=True):
        plant.enrol(box, site="hall-3", models=["gearwheel"])
        moves = [(now_ms - 60_000 + 400 + after_ms, candidate, old)]
        moves += [(decided_ms + back_ms, old, candidate)] if taken_back else []
        for at_ms, to, before in moves:
            plant.clock.at(at_ms)  # type: ignore[attr-defined]
            data = {"bundle": to.model_dump(), "before": before.model_dump()}
            plant.up(box, [plant.event(box, "bundle_swapped", model="gearwheel", data=data)])
    plant.clock.at(now_ms)  # type: ignore[attr-defined]
    return state.rollout
