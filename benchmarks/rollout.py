"""How long does a whole rollout over a large fleet take the rule that decides it, on a clock of its own?

Rules:
- The rule is the real one (`cloud.rollouts`) with the default plan; devices are simulated as the cloud sees them: they
  fetch, try, last their probation, go away, come back, refuse, and enrol late.
- Cases come as numbers per arm, not as rows: reading rows is measured elsewhere. Nothing waits for time to pass.
- At every look the promises are checked, so that a quick run that breaks one is no result.
"""

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.tables import print_table
from cloud.gates import Counts, GateSpec
from cloud.plans import Plan, PlanShape, parse_plan
from cloud.rollout_state import DeviceView, Evidence, RolloutState, wanted_bundles
from cloud.rollouts import decide_all
from edge.wire.base import BundleRef

DEVICES = 100_000
LOOK_MS = 30_000
MAX_LOOKS = 5000
START_MS = 1_767_225_600_000
SEED = 7
PROFILES = 3
DEVICES_OF_A_SITE = 250
AWAY, REFUSING, LATE = 0.02, 0.0005, 0.001
"""Shares of the fleet that go away for a while, that refuse the bundle, and that enrol meanwhile."""
CASES_PER_LOOK = 15
"""Of a device in half a minute."""
AUDITED = 0.01
RATES = {"deferral": 0.1, "errors": 0.001, "deadline": 0.001, "wrong": 0.02, "escape": 0.02}
OLD = BundleRef(name="glass", version="1.0.0", digest="a" * 64, size_bytes=1)
NEW = BundleRef(name="glass", version="1.1.0", digest="b" * 64, size_bytes=1)
BAD_FACTOR = 6.0
"""A bad version errs so many times as often."""
WORLDS = (("good version", "", 1.0), ("bad version", "", BAD_FACTOR), ("blue/green", "blue_green", 1.0))


@dataclass(frozen=True)
class Result:
    """One rollout."""

    world: str
    devices: int
    ended: str
    looks: int
    hours: float
    """On the rollout's own clock."""
    seconds: float
    """From first look to last, wall clock, with the simulation of the fleet."""
    rule_s: float
    """Of it, what the rule took."""
    cpu_s: float
    """The rule's processor time: what it takes when nobody else works on the machine."""
    slowest_look_s: float
    most_on_candidate: int
    running_new: int
    """Devices that are asked to run the candidate at the end."""


class Simulated:
    """A fleet as the cloud sees it."""

    def __init__(self, devices: int, factor: float, rng: np.random.Generator) -> None:
        self._rng, self._factor = rng, factor
        self._names = [f"box-{i:06d}" for i in range(devices + int(LATE * devices))]
        self._known = devices
        self._views = {name: self._view(i, name) for i, name in enumerate(self._names[:devices])}
        self._refusing = {self._names[i] for i in rng.choice(devices, int(REFUSING * devices), replace=False)}
        self._counts: dict[str, dict[str, list[int]]] = {}
        self._stage = -1

    def step(self, state: RolloutState, plan: Plan, look: int) -> Evidence:
        """Let devices obey, decide and come and go; return what is known of them."""
        if look == 20:
            for i in range(self._known, len(self._names)):
                self._views[self._names[i]] = self._view(i, self._names[i])
        self._come_and_go(look)
        for name, wanted in wanted_bundles(state).items():
            if self._views[name].online:
                self._obey(
                    name, wanted.active is not None and wanted.active.digest == NEW.digest, wanted.candidate is not None
                )
        return self._evidence(state, plan)

    def _obey(self, name: str, active: bool, staged: bool) -> None:  # noqa: FBT001
        view = self._views[name]
        if (active or staged) and name in self._refusing:
            change: dict[str, Any] = {"refusal": "too little memory"}
        elif (active or staged) and view.slot is None:
            change = {"slot": "staged"}
        elif active and view.slot in ("staged", "trial"):
            change = {"slot": "good" if view.slot == "trial" else "trial", "serving": NEW.digest}
        elif not active and view.serving == NEW.digest:
            change = {"serving": OLD.digest}
        else:
            return
        self._views[name] = view.model_copy(update=change)

    def _come_and_go(self, look: int) -> None:
        names = list(self._views)
        if look % 50 == 1:
            self._away = [names[i] for i in self._rng.choice(len(names), int(AWAY * len(names)), replace=False)]
        for name in self._away if look % 50 in (1, 30) else ():
            gone = look % 50 == 1
            change = {"online": not gone, "silent_s": 1e6 if gone else 0.0}
            self._views[name] = self._views[name].model_copy(update=change)

    def _evidence(self, state: RolloutState, plan: Plan) -> Evidence:
        if state.stage != self._stage:
            self._stage, self._counts = state.stage, {}
        specs = plan.stages[state.stage].gates if state.stage >= 0 else []
        arms = {
            "candidate": (self._serving(state.with_role("candidate"), NEW), self._factor),
            "control": (self._serving(state.with_role("control"), OLD), 1.0),
        }
        concurrent = bool(state.with_role("control"))
        if not concurrent:
            arms["control"] = (len(self._views) // 10, 1.0)
        for arm, (devices, factor) in arms.items():
            for spec in specs:
                self._count(arm, spec, devices, factor)
        counted = {
            arm: {key: Counts(bad=bad, n=n) for key, (bad, n) in self._counts.get(arm, {}).items()} for arm in arms
        }
        views = list(self._views.values())
        return Evidence.model_construct(
            None,
            stage=state.stage,
            devices=views,
            concurrent=concurrent,
            notes={},
            candidate=counted["candidate"],
            control=counted["control"],
        )

    def _serving(self, names: list[str], ref: BundleRef) -> int:
        return sum(self._views[name].serving == ref.digest and self._views[name].online for name in names)

    def _count(self, arm: str, spec: GateSpec, devices: int, factor: float) -> None:
        cases = devices * CASES_PER_LOOK
        if spec.metric in ("wrong", "escape"):
            cases = int(self._rng.binomial(cases, AUDITED))
        rate = RATES[spec.metric] * (factor if spec.metric in ("wrong", "escape") else 1.0)
        total = self._counts.setdefault(arm, {}).setdefault(spec.key, [0, 0])
        total[0] += int(self._rng.binomial(cases, rate))
        total[1] += cases

    @staticmethod
    def _view(index: int, name: str) -> DeviceView:
        site, profile = f"site-{index // DEVICES_OF_A_SITE}", f"profile-{index % PROFILES}"
        return DeviceView(device=name, site=site, profile=profile, online=True, active=OLD, serving=OLD.digest)


def main(*, as_json: bool = False, devices: int = DEVICES) -> list[dict[str, Any]]:
    """Simulate and print."""
    rows = []
    for world, strategy, factor in WORLDS:
        sys.stderr.write(f"{world} over {devices} devices\n")
        shape = parse_plan(f'strategy = "{strategy}"') if strategy else PlanShape()
        rows.append(asdict(_run(world, shape, devices, factor)))
    print_table(
        f"A rollout over {devices} devices, looked at every {LOOK_MS // 1000} s, seed {SEED}", rows, as_json=as_json
    )
    return rows


def _run(world: str, shape: PlanShape, devices: int, factor: float) -> Result:
    plan = Plan.of(shape, model="glass", version=NEW.version, digest=NEW.digest)
    fleet = Simulated(devices, factor, np.random.default_rng(SEED))
    state = RolloutState(rollout="r", candidate=NEW, seed=SEED, started_at_ms=START_MS)
    looks, took_s, cpu_s, slowest_s, most = 0, 0.0, 0.0, 0.0, 0
    all_began_s = time.perf_counter()
    while state.open and looks < MAX_LOOKS:
        evidence = fleet.step(state, plan, looks)
        before = state
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        state, made = decide_all(plan, state, evidence, START_MS + LOOK_MS * looks)
        lasted_s, cpu_s = time.perf_counter() - began_s, cpu_s + time.process_time() - cpu_began_s
        took_s, slowest_s, looks = took_s + lasted_s, max(slowest_s, lasted_s), looks + 1
        asked = state.count("candidate")
        most = max(most, asked)
        _check(plan, before, state, asked)
        for decision in made:
            if decision.step in ("stage_entered", "rolled_back", "finished"):
                sys.stderr.write(f"  {looks * LOOK_MS / 3.6e6:6.2f} h  {decision.step}: {decision.reason[:110]}\n")
    new = sum(wanted.active == NEW for wanted in wanted_bundles(state).values())
    whole_s = time.perf_counter() - all_began_s
    hours = looks * LOOK_MS / 3.6e6
    return Result(world, devices, state.status, looks, hours, whole_s, took_s, cpu_s, slowest_s, most, new)


def _check(plan: Plan, before: RolloutState, state: RolloutState, asked: int) -> None:
    """See to it that a promise that is broken is an error and no figure."""
    if state.open and state.stage >= 0:
        stage = plan.stages[state.stage]
        allowed = 0 if stage.kind == "shadow" else stage.quota(state.cohort)
        assert asked <= allowed, f"{asked} on the candidate, {allowed} allowed"
        assert state.waiting_for or state.stage != before.stage, "it waits and does not say for what"
    if state.stage > before.stage >= 0:
        assert not any(answer.verdict == "fail" for answer in before.answers.values())
