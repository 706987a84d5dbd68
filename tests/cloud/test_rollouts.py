"""The rule of rollouts over random histories, and the situations that people ask about by name."""

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.gates import Counts
from cloud.plans import Plan, PlanShape, Stage, parse_plan
from cloud.rollout_state import (
    UNLOGGED,
    Aborted,
    Decision,
    DevicesAssigned,
    DevicesReleased,
    DevicesStaged,
    DeviceView,
    Evidence,
    Paused,
    Resumed,
    RolloutState,
    apply,
    wanted_bundles,
)
from cloud.rollouts import MAX_TICK_MS, decide, decide_all, missing
from cloud.strata import draw_order, matching_controls
from edge.wire.base import BundleRef

OLD = BundleRef(name="glass", version="1.0.0", digest="a" * 64, size_bytes=1)
NEW = BundleRef(name="glass", version="1.1.0", digest="b" * 64, size_bytes=1)
START_MS = 1_700_000_000_000

PLAN = """
absent_after_s = 5
max_refused_share = 0.4
[[stages]]
kind = "canary"
share = 0.34
min_s = 2
max_s = 40
[[stages.gates]]
metric = "deferral"
margin = 0.2
[[stages]]
kind = "ramp"
share = 1.0
min_s = 2
max_s = 40
[[stages.gates]]
metric = "errors"
margin = 0.1
"""


def plan_of(text: str = PLAN) -> Plan:
    return Plan.of(parse_plan(text), model="glass", version="1.1.0", digest=NEW.digest)


@dataclass
class Box:
    """A device as the rule can see it, with a will of its own."""

    name: str
    site: str = "a"
    online: bool = True
    refuses: bool = False
    breaks: bool = False
    lies: bool = False
    fetch_looks: int = 0
    """Looks that a download takes."""
    fetched_looks: int = 0
    serving: BundleRef = OLD
    slot: str | None = None
    trial_looks: int = 0
    silent_s: float = 0.0
    refusal: str = ""
    failure: str = ""

    def obey(self, active: BundleRef | None, candidate: BundleRef | None) -> None:
        if NEW in (active, candidate) and self.slot is None and self.fetched_looks < self.fetch_looks:
            self.fetched_looks += 1
        elif active == NEW and self.slot != "bad":
            self._take()
        elif active == OLD:
            self.serving = OLD
        if candidate == NEW and self.slot is None and self.fetched_looks >= self.fetch_looks:
            self.refusal = "made for another profile" if self.refuses else ""
            self.slot = None if self.refuses else "staged"

    def _take(self) -> None:
        if self.refuses:
            self.refusal = "made for another profile"
        elif self.breaks and self.slot == "trial":
            self.slot, self.failure, self.serving = "bad", "crashed", OLD
        elif self.slot in (None, "staged"):
            self.slot, self.serving = "trial", NEW
        else:
            self.slot, self.serving = "good", NEW

    def view(self, rng: random.Random) -> DeviceView:
        if self.lies and rng.random() < 0.5:
            return self._lie(rng)
        return DeviceView.model_validate(
            {
                "device": self.name,
                "site": self.site,
                "profile": "x",
                "online": self.online,
                "silent_s": self.silent_s,
                "active": OLD,
                "serving": self.serving.digest,
                "slot": self.slot,
                "failure": self.failure,
                "refusal": self.refusal,
            }
        )

    def _lie(self, rng: random.Random) -> DeviceView:
        words = rng.choice(("", "", "", "I would not"))
        return DeviceView.model_validate(
            {
                "device": self.name,
                "site": rng.choice("ab"),
                "profile": "x",
                "online": rng.random() < 0.7,
                "silent_s": rng.choice((0.0, 1e9)),
                "active": rng.choice((OLD, NEW, None)),
                "serving": rng.choice((OLD.digest, NEW.digest, "c" * 64, None)),
                "slot": rng.choice((None, "staged", "trial", "good")),
                "refusal": words,
            }
        )


@dataclass
class World:
    """Boxes under one rollout; a look a step."""

    plan: Plan
    boxes: list[Box]
    bad_rate: float = 0.05
    rate: int = 20
    now_ms: int = START_MS
    seed: int = 1
    state: RolloutState = field(init=False)
    counts: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    stage: int = -1
    made: list[Decision] = field(default_factory=list)
    doubled: bool = False
    """Every device is told of twice."""
    published: RolloutState | None = None
    """What the devices know, where the control plane died before it told them more."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.state = RolloutState(rollout="r", candidate=NEW, seed=self.seed, started_at_ms=self.now_ms)

    def evidence(self) -> Evidence:
        arms = {
            arm: {key: Counts(bad=bad, n=n) for key, (bad, n) in self.counts.get(arm, {}).items()}
            for arm in ("candidate", "control")
        }
        concurrent = bool(self.state.with_role("control"))
        views = [box.view(self.rng) for box in self.boxes for _ in range(1 + self.doubled)]
        return Evidence(stage=self.state.stage, devices=views, concurrent=concurrent, **arms)

    def look(self, passed_ms: int = 1000, *, dies: str = "") -> list[Decision]:
        """Let time pass, devices obey and decide, and look once, from a state that went through JSON.

        `dies`: the control plane does so before it has saved what it decided, or before it has told the devices.
        """
        self.now_ms += passed_ms
        told = wanted_bundles(self.published or self.state)
        for box in self.boxes:
            wanted = told.get(box.name)
            if box.online and wanted is not None:
                box.obey(wanted.active, wanted.candidate)
            box.silent_s = 0.0 if box.online else box.silent_s + max(0, passed_ms) / 1000
        self._work()
        before = self.state = RolloutState.model_validate_json(self.state.model_dump_json())
        self.published = (self.published or before) if dies else None
        if dies == "before it saves":
            decide_all(self.plan, self.state, self.evidence(), self.now_ms)
            return []
        self.state, made = decide_all(self.plan, self.state, self.evidence(), self.now_ms)
        self.made += made
        return made

    def run(self, looks: int) -> None:
        for _ in range(looks):
            if self.state.open:
                self.look()

    def steps(self) -> list[str]:
        return [decision.step for decision in self.made if decision.step not in UNLOGGED]

    def _work(self) -> None:
        if self.state.stage != self.stage:
            self.stage = self.state.stage
            controls = self.counts.get("control", {})
            self.counts = {} if self.state.with_role("control") else {"control": controls}
        for box in self.boxes:
            role = self.state.members[box.name].role if box.name in self.state.members else "waiting"
            for arm, ref in (("candidate", NEW), ("control", OLD)):
                if box.online and role == arm and box.serving == ref:
                    rate = self.bad_rate if ref == NEW else 0.05
                    for metric, p in (("deferral", rate), ("errors", 0.0)):
                        total = self.counts.setdefault(arm, {}).setdefault(metric, [0, 0])
                        total[0] += sum(self.rng.random() < p for _ in range(self.rate))
                        total[1] += self.rate


def boxes(count: int, sites: str = "a") -> list[Box]:
    return [Box(f"box-{i}", site=sites[i % len(sites)]) for i in range(count)]


def running_new(world: World) -> list[str]:
    return sorted(name for name, wanted in wanted_bundles(world.state).items() if wanted.active == NEW)


def test_a_good_version_reaches_every_device_and_says_why_at_each_step() -> None:
    world = World(plan_of(), boxes(3))
    world.look()
    assert len(world.state.with_role("candidate")) == 1
    assert len(world.state.with_role("control")) == 1
    world.run(60)
    assert world.state.status == "done"
    assert running_new(world) == ["box-0", "box-1", "box-2"]
    assert world.steps().count("stage_entered") == 2
    assert "gate_passed" in world.steps()


def test_a_bad_version_is_taken_back_from_the_canary_and_reaches_no_other() -> None:
    world = World(plan_of(), boxes(3), bad_rate=0.6)
    world.run(60)
    assert world.state.status == "rolled_back"
    assert world.state.stage == 0
    assert "surely more than" in world.state.why
    assert all(wanted.active == OLD and wanted.candidate is None for wanted in wanted_bundles(world.state).values())


def test_a_device_that_goes_back_by_itself_takes_all_back() -> None:
    world = World(plan_of(), [Box(f"box-{i}", breaks=True) for i in range(3)])
    world.run(10)
    assert world.state.status == "rolled_back"
    assert "went back by itself: crashed" in world.state.why


def test_without_decisions_it_ends_taken_back_for_want_of_evidence() -> None:
    world = World(plan_of(), boxes(3), rate=0)
    world.run(100)
    assert world.state.status == "rolled_back"
    assert "for want of evidence" in world.state.why
    assert "needs about" in world.state.why


def test_without_decisions_a_plan_that_holds_pauses_and_can_be_resumed() -> None:
    world = World(plan_of('on_timeout = "hold"\n' + PLAN), boxes(3), rate=0)
    world.run(100)
    assert world.state.status == "paused"
    assert "held for want of evidence" in world.state.why
    world.state = apply(world.state, Resumed(who="ann", reason="the line runs again"))
    world.rate = 20
    world.run(60)
    assert world.state.status == "done"


def test_a_pause_holds_the_step_forward_but_not_the_way_back() -> None:
    world = World(plan_of(), boxes(3))
    world.run(3)
    world.state = apply(world.state, Paused(who="ann", reason="shift change"))
    world.run(200)
    assert (world.state.status, world.state.stage) == ("paused", 0)
    world.bad_rate = 1.0
    world.run(60)
    assert world.state.status == "rolled_back"


def test_an_aborted_rollout_takes_all_back_and_decides_nothing_more() -> None:
    world = World(plan_of(), boxes(3))
    world.run(4)
    world.state = apply(world.state, Aborted(who="ann", reason="wrong labels"))
    assert {wanted.active for wanted in wanted_bundles(world.state).values()} == {OLD}
    assert decide(world.plan, world.state, world.evidence(), world.now_ms) == []


def test_a_refusal_is_counted_apart_and_another_device_takes_its_place() -> None:
    fleet = boxes(5)
    order = draw_order({box.name: "a/x" for box in fleet}, 1)
    for box in fleet:
        box.refuses = box.name == order[0]
    world = World(plan_of(), fleet)
    world.run(100)
    assert world.state.status == "done"
    assert world.state.with_role("refused") == [order[0]]
    assert world.state.with_role("failed") == []
    assert order[0] not in running_new(world)
    assert f"{order[0]} refused it" in world.state.why


def test_a_bundle_that_everyone_refuses_is_taken_back() -> None:
    world = World(plan_of(), [Box(f"box-{i}", refuses=True) for i in range(5)])
    world.run(100)
    assert world.state.status == "rolled_back"
    assert "refused" in world.state.why
    assert len(world.state.with_role("refused")) == 3, "the limit of the plan is 0.4 of 5"


def test_a_chosen_device_that_goes_away_gives_up_its_place_and_joins_later() -> None:
    world = World(plan_of(), boxes(5))
    away = draw_order({box.name: "a/x" for box in world.boxes}, 1)[0]
    world.look()
    assert away in world.state.with_role("candidate")
    gone = next(box for box in world.boxes if box.name == away)
    gone.online = False
    world.run(60)
    assert [d.devices for d in world.made if isinstance(d, DevicesReleased)] == [[away]]
    assert world.state.status == "done"
    assert away in running_new(world), "what is desired waits for it"
    assert f"{away} cannot be reached" in world.state.why


def test_a_device_that_enrols_meanwhile_joins_the_cohort() -> None:
    world = World(plan_of(), boxes(3))
    world.run(3)
    world.boxes.append(Box("box-9"))
    world.run(60)
    assert world.state.status == "done"
    assert "box-9" in running_new(world)


def test_a_single_device_is_compared_with_its_own_past() -> None:
    world = World(plan_of(), boxes(1))
    world.counts = {"control": {"deferral": [10, 400], "errors": [0, 400]}}
    world.run(60)
    assert world.state.status == "done"
    assert any("old version before" in decision.reason for decision in world.made)


def test_a_device_that_ran_it_before_takes_no_part() -> None:
    world = World(plan_of(), boxes(3))
    views = [box.view(world.rng) for box in world.boxes]
    views[0] = views[0].model_copy(update={"active": NEW, "serving": NEW.digest, "slot": "good"})
    state, _ = decide_all(world.plan, world.state, Evidence(devices=views), START_MS)
    assert state.with_role("already") == ["box-0"]
    assert "box-0" not in wanted_bundles(state)
    assert state.cohort == 2


def test_blue_green_switches_all_at_once_and_only_when_all_that_can_be_reached_hold_it() -> None:
    world = World(plan_of('strategy = "blue_green"'), boxes(4), rate=200)
    world.plan = plan_of(
        'strategy = "blue_green"\n[[stages]]\nkind = "shadow"\nmin_s = 3\n'
        '[[stages]]\nkind = "switch"\nmin_s = 2\n[[stages.gates]]\nmetric = "deferral"\nmargin = 0.2'
    )
    world.counts = {"control": {"deferral": [200, 4000]}}
    sizes = set()
    while world.state.open:
        world.look()
        sizes.add(len(running_new(world)))
        if world.state.stage == 0:
            assert all(wanted.candidate == NEW for wanted in wanted_bundles(world.state).values())
    assert sizes == {0, 4}
    assert world.state.status == "done"


def test_evidence_of_the_stage_before_moves_nothing() -> None:
    world = World(plan_of(), boxes(3))
    while world.state.stage < 1:
        world.look()
    stale = world.evidence().model_copy(update={"stage": 0})
    plenty = {"errors": Counts(bad=0, n=9999)}
    stale = stale.model_copy(update={"candidate": plenty, "control": plenty})
    state, _ = decide_all(world.plan, world.state, stale, world.now_ms + 30_000)
    assert (state.status, state.stage) == ("running", 1)


def test_a_night_of_being_switched_off_does_not_count_as_time_served() -> None:
    world = World(plan_of(PLAN.replace("max_s = 40", "max_s = 4000")), boxes(3), rate=0)
    world.run(3)
    before_ms = world.state.stage_elapsed_ms
    world.look(passed_ms=12 * 3600 * 1000)
    assert world.state.stage_elapsed_ms == before_ms + MAX_TICK_MS
    world.look(passed_ms=-24 * 3600 * 1000)
    assert world.state.stage_elapsed_ms == before_ms + MAX_TICK_MS


def test_canaries_are_drawn_by_strata_and_not_by_health() -> None:
    strata = {f"box-{i:02d}": f"site-{i % 4}" for i in range(40)}
    for seed in range(20):
        order = draw_order(strata, seed)
        assert sorted(order) == sorted(strata)
        taken = [strata[name] for name in order[:8]]
        assert {taken.count(f"site-{k}") for k in range(4)} == {2}
        controls = matching_controls(order[8:], strata, order[:8], [], 8)
        assert sorted(strata[name] for name in controls) == sorted(taken)
    assert len({tuple(draw_order(strata, seed)[:4]) for seed in range(20)}) > 10, "the same boxes bear every risk"


NOTHING = ("nothing", "nothing", "nothing")
RESTARTS = ("before it saves", "before it tells")
FAULTS = st.sampled_from(
    (
        *NOTHING,
        "die",
        "come back",
        "repeat",
        "duplicate",
        "forward",
        "backward",
        "hour",
        "month",
        "enrol",
        "pause",
        "resume",
        *RESTARTS,
    )
)
WINDOW = '[stages.window]\nstart = "22:14"\nend = "22:20"\n'
"""Opens forty seconds after the start."""
SHADOW = '[[stages]]\nkind = "shadow"\nmin_s = 1\nmax_s = 20\n'


@settings(max_examples=80)
@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 2**16),
    bad_rate=st.sampled_from([0.05, 0.05, 0.3, 0.9]),
    refusing=st.sets(st.integers(0, 8), max_size=3),
    breaking=st.sets(st.integers(0, 8), max_size=1),
    lying=st.sets(st.integers(0, 8), max_size=2),
    downloads=st.sampled_from([0, 0, 1, 2]),
    window=st.booleans(),
    share=st.sampled_from([0.1, 0.34, 0.5, 0.8]),
    shadow=st.booleans(),
    hold=st.booleans(),
    faults=st.lists(st.tuples(FAULTS, st.integers(0, 8)), max_size=60),
)
def test_over_random_histories_the_promises_hold(
    count: int,
    seed: int,
    bad_rate: float,
    refusing: set[int],
    breaking: set[int],
    lying: set[int],
    downloads: int,
    window: bool,
    share: float,
    shadow: bool,
    hold: bool,
    faults: list[tuple[str, int]],
) -> None:
    text = PLAN.replace("share = 0.34", f"share = {share}")
    text = text.replace("max_s = 40\n", "max_s = 40\n" + WINDOW) if window else text
    text = text.replace("[[stages]]", SHADOW + "[[stages]]", 1) if shadow else text
    text = (
        ('on_timeout = "hold"\n' if hold else "") + (f"max_parallel_downloads = {downloads}\n" * (downloads > 0)) + text
    )
    world = World(plan_of(text), boxes(count, "ab"), bad_rate, seed=seed)
    for i, box in enumerate(world.boxes):
        box.refuses, box.breaks, box.lies, box.fetch_looks = i in refusing, i in breaking, i in lying, i % 3
    for fault, which in faults:
        if world.state.open:
            _one_look(world, fault, which)
    for box in world.boxes:
        box.online = box.online or world.rng.random() < 0.5
    for _ in range(150):  # longer than all stages together may last
        if world.state.status == "running":
            _one_look(world, "to the window" if _awaits_window(world) else "nothing", 0)
    may_be_paused = hold or any(fault == "pause" for fault, _ in faults)
    assert world.state.status in ("done", "rolled_back", *(["paused"] if may_be_paused else []))
    if world.state.status == "rolled_back":
        honest = {box.name for box in world.boxes if not box.lies}  # a liar goes back to what it said it had
        assert all(wanted.active == OLD for name, wanted in wanted_bundles(world.state).items() if name in honest)


def _awaits_window(world: World) -> bool:
    stage = world.plan.stages[max(world.state.stage, 0)]
    return stage.window is not None and world.state.stage >= 0 and not world.state.window_seen


def _one_look(world: World, fault: str, which: int) -> None:
    month_ms = 30 * 24 * 3_600_000
    passed_ms = {"forward": 90_000, "backward": -500_000, "hour": 3_600_000, "month": month_ms}.get(fault, 1000)
    if fault == "to the window":
        opens = world.plan.stages[world.state.stage].window
        assert opens is not None
        passed_ms = opens.next_ms(world.now_ms) - world.now_ms
    world.doubled = fault == "duplicate"
    box = world.boxes[which % len(world.boxes)]
    if fault in ("die", "come back", "month"):
        box.online = fault == "come back"
    elif fault == "enrol" and len(world.boxes) < 12:
        world.boxes.append(Box(f"box-{len(world.boxes)}"))
    elif fault == "pause" and world.state.status == "running":
        world.state = apply(world.state, Paused(who="ann", reason="because"))
    elif fault == "resume" and world.state.status == "paused":
        world.state = apply(world.state, Resumed(who="ann", reason="because"))
    before = world.state
    made = world.look(passed_ms, dies=fault if fault in RESTARTS else "")
    _check_look(world, before, made)
    if fault == "repeat" and world.state.open and not any(box.lies for box in world.boxes):
        evidence = world.evidence().model_copy(update={"stage": before.stage})
        again = decide(world.plan, world.state, evidence, world.now_ms)
        assert {decision.step for decision in again} <= set(UNLOGGED), "the same look twice changes nothing"


def _check_look(world: World, before: RolloutState, made: list[Decision]) -> None:
    plan, state = world.plan, world.state
    for decision in made:
        assert decision.reason or decision.step in UNLOGGED, f"{decision.step} does not say why"
    _check_changes(world, before, made)
    assert state.why or not state.members or not state.open, "it does not say why it is where it is"
    if state.open and made:
        stuck = state.waiting_for or state.stage < 0 or state.status == "paused" or state.stage != before.stage
        assert stuck or not missing(plan, state, world.evidence(), world.now_ms), "it waits and does not say for what"
    if state.open and state.stage >= 0:
        stage = plan.stages[state.stage]
        allowed = 0 if stage.kind == "shadow" else stage.quota(state.cohort)
        assert len(running_new(world)) <= allowed
        if not stage.full and len(state.with_role("waiting", "control", "candidate")) >= 2:
            assert len(running_new(world)) < len(state.members)
    forward = state.stage > before.stage >= 0 or state.status == "done"
    if forward:
        assert state.stage - before.stage == (0 if state.status == "done" else 1)
        answers = next((d.answers for d in made if d.step == "gates_judged"), [])
        wanted = {gate.key for gate in plan.stages[before.stage].gates}
        assert {a.gate for a in answers if a.verdict == "pass"} == wanted, "forward past a gate that has not passed"
        assert all(a.candidate.n > 0 and a.control.n > 0 for a in answers)
    if any(answer.verdict == "fail" for answer in state.answers.values()):
        assert state.status == "rolled_back"
    if before.status == "paused":
        assert state.stage == before.stage
        assert state.stage_elapsed_ms == before.stage_elapsed_ms


def _check_changes(world: World, before: RolloutState, made: list[Decision]) -> None:
    """Devices are changed within the window only, and no more are asked at once than may fetch at one time."""
    stage = world.plan.stages[max(world.state.stage, 0)]
    asked = {name for d in made if isinstance(d, DevicesAssigned) for name in d.candidates}
    if asked and stage.window is not None:
        assert stage.window.until_ms(world.now_ms) is not None
    asked |= {name for d in made if isinstance(d, DevicesStaged) for name in d.devices}
    if world.plan.max_parallel_downloads is not None:
        slots = {box.name: box.slot for box in world.boxes if not box.lies}
        known = {name for name, member in before.members.items() if member.staged}
        fetching = [name for name in asked - known if name in slots and slots[name] is None]
        assert len(fetching) <= world.plan.max_parallel_downloads


@pytest.mark.parametrize("kind", ["canary", "ramp"])
def test_a_stage_has_a_control_whenever_there_are_two_devices(kind: str) -> None:
    shape = PlanShape(stages=[Stage.model_validate({"kind": kind, "share": 0.9}), Stage(kind="ramp", share=1.0)])
    for count in range(2, 12):
        world = World(Plan.of(shape, model="glass", version="1.1.0", digest=NEW.digest), boxes(count, "abc"))
        world.look()
        assert len(world.state.with_role("control")) >= 1


def test_the_last_control_stays_when_a_candidate_refuses() -> None:
    shape = PlanShape(stages=[Stage(kind="canary", share=0.9, max_s=9999), Stage(kind="ramp", share=1.0)])
    shape = shape.model_copy(update={"max_refused_share": 0.9})
    world = World(Plan.of(shape, model="glass", version="1.1.0", digest=NEW.digest), boxes(3))
    world.look()
    control, refusing = world.state.with_role("control"), world.state.with_role("candidate")[0]
    next(box for box in world.boxes if box.name == refusing).refuses = True
    world.run(5)
    assert world.state.with_role("refused") == [refusing]
    assert world.state.with_role("control") == control


def test_a_stage_without_gates_is_not_left_while_no_device_can_be_reached() -> None:
    text = "[[stages]]\nkind = 'canary'\ndevices = 1\nmin_s = 0\nmax_s = 30\n[[stages]]\nkind = 'ramp'\nshare = 1.0"
    world = World(plan_of(text), boxes(2))
    world.look()
    for box in world.boxes:
        box.online = False
    world.run(60)
    assert world.state.status == "rolled_back"
    assert "no device that can be reached" in world.state.why


NIGHT = "[stages.window]\nstart = '23:00'\nend = '23:30'\nzone = 'UTC'\n"


def test_a_stage_waits_for_its_window_fetches_ahead_and_switches_in_it() -> None:
    text = PLAN.replace(
        'max_s = 40\n[[stages.gates]]\nmetric = "def', "max_s = 40\n" + NIGHT + '[[stages.gates]]\nmetric = "def'
    )
    world = World(plan_of(text), boxes(6))
    world.run(100)
    assert world.state.stage_elapsed_ms == 0, "the clock of the stage stands still"
    assert running_new(world) == []
    chosen = [box.name for box in world.boxes if box.slot == "staged"]
    assert len(chosen) == 2, "a third of six have it on disk"
    assert any("opens on Tue 14 Nov 23:00 UTC" in words for words in world.state.waiting_for), world.state.waiting_for
    opens = world.plan.stages[0].window
    assert opens is not None
    world.look(opens.next_ms(world.now_ms) - world.now_ms)
    assert running_new(world) == chosen
    assert "window_opened" in world.steps()
    world.run(100)
    assert world.state.status == "done", world.state.why


def test_a_bad_version_goes_back_though_the_window_is_closed() -> None:
    text = PLAN.replace(
        'max_s = 40\n[[stages.gates]]\nmetric = "def', "max_s = 4000\n" + NIGHT + '[[stages.gates]]\nmetric = "def'
    )
    world = World(plan_of(text), boxes(6), rate=0)
    world.look()
    opens = world.plan.stages[0].window
    assert opens is not None
    world.look(opens.next_ms(world.now_ms) - world.now_ms)
    world.run(2)
    assert len(running_new(world)) == 2
    world.look(3_600_000)
    assert opens.until_ms(world.now_ms) is None
    world.rate, world.bad_rate = 50, 0.9
    world.run(20)
    assert world.state.status == "rolled_back"
    assert running_new(world) == []


def test_a_device_that_enrols_outside_the_window_fetches_and_waits_for_the_next_one() -> None:
    text = "[[stages]]\nkind = 'ramp'\nshare = 1.0\nmin_s = 9000\nmax_s = 900000\n" + NIGHT
    world = World(plan_of(text), boxes(3))
    opens = world.plan.stages[0].window
    assert opens is not None
    world.look()
    world.look(opens.next_ms(world.now_ms) - world.now_ms)
    assert len(running_new(world)) == 3
    world.look(3_600_000)
    world.boxes.append(Box("late"))
    world.run(3)
    assert world.boxes[-1].slot == "staged"
    assert "late" not in running_new(world)
    world.look(opens.next_ms(world.now_ms) - world.now_ms)
    assert "late" in running_new(world)


def test_no_more_devices_fetch_at_one_time_than_the_plan_says_and_all_get_their_turn() -> None:
    stages = "[[stages]]\nkind = 'shadow'\nmin_s = 0\nmax_s = 90\n[[stages]]\nkind = 'ramp'\nshare = 1.0\nmin_s = 0\n"
    text = "max_parallel_downloads = 2\n" + stages
    world = World(plan_of(text), [Box(f"box-{i}", fetch_looks=3) for i in range(9)])
    most = 0
    while world.state.status == "running" and len(world.made) < 2000:
        world.look()
        asked = [world.state.members[box.name] for box in world.boxes if box.slot is None and box.online]
        most = max(most, sum(member.staged or member.role == "candidate" for member in asked))
        if world.state.stage == 0 and any("turn of" in words for words in world.state.waiting_for):
            assert "at most 2 downloads at a time" in " ".join(world.state.waiting_for)
    assert world.state.status == "done", world.state.why
    assert most == 2
    assert len(running_new(world)) == 9
