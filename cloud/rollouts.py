"""The rule of rollouts: plan + state + evidence + now → decisions with reasons; pure.

Rules:
- Never more than the stage's share of the cohort is asked to run the candidate, and never forward past a gate that
  has not passed. A failing gate, or a device that went back by itself, takes the version back from all.
- It always ends: a stage that has no answer by its `max_s` is taken back, or held if the plan says so.
- Paused means: no step forward and no clock. The way back stays open.
- Devices that refuse are counted apart from those that fail; those that are away give up their place in a stage and
  join with the last one, or whenever they come back.
- At most one step forward a look: the evidence of one stage never answers the gates of the next.
- The clock may jump and looks may be missed: a stage's time is the sum of short steps between looks.
- With a maintenance window devices are changed within it only; until it has opened once, the stage's clock stands still
  and devices may fetch the bundle ahead. The way back waits for no window.
"""

from collections.abc import Callable, Iterable

from cloud import gates
from cloud.drawing import HELD, next_candidates, next_controls, next_staged, with_room
from cloud.plans import Plan, Stage
from cloud.rollout_state import (
    NOT_STARTED,
    Decision,
    DeviceFailed,
    DeviceRefused,
    DevicesAssigned,
    DevicesJoined,
    DevicesReleased,
    DevicesStaged,
    DeviceView,
    Evidence,
    Finished,
    GateFailed,
    GateNeedsMore,
    GatePassed,
    GatesJudged,
    Member,
    Paused,
    RolledBack,
    RolloutState,
    StageEntered,
    Ticked,
    Waited,
    WindowOpened,
    apply,
)
from cloud.strata import stratum

MAX_TICK_MS = 60_000
"""Longest time that one look may add to a stage: a jump of the clock or a night switched off is no time served."""
NAMES_SHOWN = 5
"""Device names in a reason; beyond that a number says more."""


def decide(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> list[Decision]:
    """Return what follows now, in order; applying all of it to the state and asking again changes nothing but time."""
    return decide_all(plan, state, evidence, now_ms)[1]


def decide_all(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> tuple[RolloutState, list[Decision]]:
    """Return the state after `decide`, and its decisions."""
    made: list[Decision] = []
    for rule in _RULES:
        if not state.open:
            break
        for decision in rule(plan, state, evidence, now_ms):
            state = apply(state, decision)
            made.append(decision)
    return state, made


def _tick(plan: Plan, state: RolloutState, _evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    passed_ms = min(max(now_ms - state.last_tick_ms, 0), MAX_TICK_MS) if state.last_tick_ms else 0
    if _awaits_window(plan, state):
        passed_ms = 0
    yield Ticked(now_ms=now_ms, elapsed_ms=passed_ms)


def _join(_plan: Plan, state: RolloutState, evidence: Evidence, _now_ms: int) -> Iterable[Decision]:
    """Devices of the cohort that are new here: at the start all of them, later those that enrol."""
    new = {view.device: _member(view, state) for view in evidence.devices if view.device not in state.members}
    if new:
        yield DevicesJoined(members=new, reason=f"in the cohort now: {_names(new)}")
    for name, member in new.items():
        if member.role == "refused":
            yield DeviceRefused(device=name, reason=member.why)


def _member(view: DeviceView, state: RolloutState) -> Member:
    place = stratum(view.site, view.profile)
    if view.active is not None and view.active.digest == state.candidate.digest:
        why = f"{view.device} ran {_bundle(state)} before"
        return Member(role="already", stratum=place, previous=view.active, why=why)
    if view.slot == "bad":
        why = f"{view.device} has found it bad before: {view.failure or view.refusal or 'no reason given'}"
        return Member(role="refused", stratum=place, previous=view.active, why=why)
    return Member(stratum=place, previous=view.active, joined=state.stage)


def _note_devices(_plan: Plan, state: RolloutState, evidence: Evidence, _now_ms: int) -> Iterable[Decision]:
    """Returns and refusals that the devices report; apart, because they mean different things."""
    for view in evidence.devices:
        if not view.failure and not view.refusal:
            continue
        member = state.members[view.device]
        asked = member.role == "candidate" or (member.staged and member.role in ("waiting", "control"))
        if asked and view.failure:
            yield DeviceFailed(device=view.device, reason=f"{view.device} went back by itself: {view.failure}")
        elif asked and view.refusal:
            yield DeviceRefused(device=view.device, reason=f"{view.device} would not take it: {view.refusal}")


def _judge(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    if state.stage == NOT_STARTED or evidence.stage != state.stage or not plan.stages[state.stage].gates:
        return
    answers = [_answer(plan, state, evidence, gate, now_ms) for gate in plan.stages[state.stage].gates]
    before = state.answers
    yield GatesJudged(answers=answers)
    for answer in answers:
        if answer.gate not in before or before[answer.gate].verdict != answer.verdict:
            yield _CHANGED[answer.verdict](answer=answer, reason=answer.words)


_CHANGED: dict[gates.Verdict, type[GatePassed | GateFailed | GateNeedsMore]] = {
    "pass": GatePassed,
    "fail": GateFailed,
    "need_more": GateNeedsMore,
}


def _answer(plan: Plan, state: RolloutState, evidence: Evidence, gate: gates.GateSpec, now_ms: int) -> gates.GateAnswer:
    return gates.judge(
        gate,
        evidence.candidate.get(gate.key, gates.Counts()),
        evidence.control.get(gate.key, gates.Counts()),
        fail_error=plan.fail_error(gate),
        pass_error=plan.error,
        elapsed_s=state.stage_elapsed_ms / 1000,
        concurrent=evidence.concurrent,
        note=evidence.notes.get(gate.key, ""),
        now_ms=now_ms,
        left_s=max(0.0, plan.stages[state.stage].max_s - state.stage_elapsed_ms / 1000),
    )


def _take_back(plan: Plan, state: RolloutState, _evidence: Evidence, _now_ms: int) -> Iterable[Decision]:
    failing = [answer for answer in state.answers.values() if answer.verdict == "fail"]
    failed, refused = state.with_role("failed"), state.with_role("refused")
    left = state.with_role("waiting", "control", "candidate")
    if failing:
        why = "; ".join(answer.words for answer in failing)
    elif len(failed) > plan.max_own_rollbacks:
        why = "; ".join(state.members[name].why for name in failed[:NAMES_SHOWN])
    elif len(refused) > max(1, int(plan.max_refused_share * state.cohort)) or (refused and not left):
        why = f"{len(refused)} of {state.cohort} devices refused: {state.members[refused[0]].why}"
    else:
        return
    yield RolledBack(reason=f"{_bundle(state)} is taken back: {why}")


def _step_forward(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    if state.status != "running":
        return
    if state.stage == NOT_STARTED:
        if state.members:
            yield StageEntered(stage=0, now_ms=now_ms, reason=f"{_bundle(state)} starts: {_stage(plan, 0)}")
        return
    if missing(plan, state, evidence, now_ms):
        return
    after = state.stage + 1
    if after == len(plan.stages):
        yield Finished(reason=_ending(state, evidence))
    else:
        count = len(plan.stages[state.stage].gates)
        passed = f"{count} gates passed" if count else "all is in place"
        yield StageEntered(stage=after, now_ms=now_ms, reason=f"{passed}: on to {_stage(plan, after)}")


def missing(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> list[str]:
    """Return what keeps the present stage from being left, in words; empty when nothing does."""
    stage = plan.stages[state.stage]
    found = _window_words(plan, state, now_ms) or _unsettled(stage, state, evidence) + _undrawn(plan, state, evidence)
    for gate in stage.gates:
        answer = state.answers.get(gate.key)
        if answer is None:
            found.append(f"{gate.key}: not looked at yet")
        elif answer.verdict != "pass":
            found.append(answer.words)
    remaining_s = stage.min_s - state.stage_elapsed_ms / 1000
    if remaining_s > 0:
        found.append(f"the stage lasts at least {stage.min_s:g} s, {remaining_s:.0f} s more")
    return found


def _unsettled(stage: Stage, state: RolloutState, evidence: Evidence) -> list[str]:
    """Return which devices are not where the stage wants them: those away do not count, but one must be there."""
    views = evidence.online
    if stage.kind == "shadow":
        asked = [name for name in state.with_role("waiting", "control") if state.members[name].staged]
        there = [name for name in asked if name in views and views[name].slot in HELD]
        what = "have it on disk"
    else:
        asked = state.with_role("candidate")
        there = [name for name in asked if name in views and _serves(views[name], state)]
        what = "run it and have lasted its probation"
    settled = set(there)
    late = [name for name in asked if name in views and name not in settled]
    if late:
        return [f"waits for {_names(late)} to {what}"]
    return [] if there else [f"no device that can be reached is known to {what}"]


def _window_words(plan: Plan, state: RolloutState, now_ms: int) -> list[str]:
    window = plan.stages[state.stage].window
    if window is None or not _awaits_window(plan, state):
        return []
    return [f"waits for its maintenance window, which opens on {window.clock_words(window.next_ms(now_ms))}"]


def _awaits_window(plan: Plan, state: RolloutState) -> bool:
    return state.stage != NOT_STARTED and plan.stages[state.stage].window is not None and not state.window_seen


def _undrawn(plan: Plan, state: RolloutState, evidence: Evidence) -> list[str]:
    """Return who can be reached and has not had a turn, where turns are taken; those who joined late hold up nobody."""
    stage = plan.stages[state.stage]
    if plan.max_parallel_downloads is None and stage.window is None:
        return []
    drawing = next_staged if stage.kind == "shadow" else next_candidates
    left = [
        name
        for name in drawing(stage, state, evidence.online)
        if name in evidence.online and state.members[name].joined < max(state.stage, 0)
    ]
    if not left:
        return []
    most = plan.max_parallel_downloads
    how = f", at most {most} downloads at a time" if most else ", within the maintenance window"
    return [
        f"{_names(left)} {'has' if len(left) == 1 else 'have'} not had {'its' if len(left) == 1 else 'their'} turn{how}"
    ]


def _serves(view: DeviceView, state: RolloutState) -> bool:
    return view.serving == state.candidate.digest and view.slot == "good"


def _release(plan: Plan, state: RolloutState, evidence: Evidence, _now_ms: int) -> Iterable[Decision]:
    """Those that are away give their place to others, unless they may be running the candidate unseen."""
    if state.status != "running" or state.stage == NOT_STARTED or plan.stages[state.stage].full:
        return
    silent = {v.device: v for v in evidence.devices if not v.online and v.silent_s >= plan.absent_after_s}
    others = any(v.online and state.members[v.device].role == "waiting" for v in evidence.devices)
    away = [
        name
        for name, view in sorted(silent.items())
        if (state.members[name].role == "candidate" and view.serving != state.candidate.digest and view.slot != "trial")
        or (state.members[name].role == "control" and others)
    ]
    if away:
        yield DevicesReleased(devices=away, reason=f"{_names(away)} cannot be reached and will join later")


def _open_window(plan: Plan, state: RolloutState, _evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    if state.status != "running" or not _awaits_window(plan, state):
        return
    window = plan.stages[state.stage].window
    until_ms = window.until_ms(now_ms) if window else None
    if window and until_ms:
        words = f"the maintenance window of {_stage(plan, state.stage)} is open until {window.clock_words(until_ms)}"
        yield WindowOpened(now_ms=now_ms, reason=words)


def _draw(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    """Fill the arms of the stage up to its share."""
    if state.status != "running" or state.stage == NOT_STARTED:
        return
    stage = plan.stages[state.stage]
    online = evidence.online
    is_open = stage.window is None or stage.window.until_ms(now_ms) is not None
    if stage.kind == "shadow" or not is_open:
        if is_open or (stage.kind != "shadow" and stage.download_early):
            wanted = with_room(plan, state, evidence.online, next_staged(stage, state, online))
            when = "the old version goes on deciding" if is_open else "ahead of the maintenance window"
            if wanted:
                yield DevicesStaged(devices=wanted, reason=f"to be fetched by {_names(wanted)}; {when}")
        return
    candidates = with_room(plan, state, evidence.online, next_candidates(stage, state, online))
    controls = [] if stage.full else next_controls(state, online, candidates)
    if candidates or controls:
        yield DevicesAssigned(candidates=candidates, controls=controls, reason=_drawn(candidates, controls))


def _time_out(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    if state.status != "running" or state.stage == NOT_STARTED:
        return
    stage = plan.stages[state.stage]
    if state.stage_elapsed_ms < stage.max_s * 1000:
        return
    why = f"for want of evidence after {stage.max_s:g} s of {_stage(plan, state.stage)}: "
    why += "; ".join(missing(plan, state, evidence, now_ms))
    if plan.on_timeout == "hold":
        yield Paused(who="plan", reason=f"held {why}")
    else:
        yield RolledBack(reason=f"{_bundle(state)} is taken back {why}")


def _wait(plan: Plan, state: RolloutState, evidence: Evidence, now_ms: int) -> Iterable[Decision]:
    if state.stage == NOT_STARTED:
        yield Waited(missing=["no device of the cohort is known yet"])
    else:
        held = ["paused: " + state.why] if state.status == "paused" else []
        yield Waited(missing=held + missing(plan, state, evidence, now_ms))


Rule = Callable[[Plan, RolloutState, Evidence, int], Iterable[Decision]]
_RULES: tuple[Rule, ...] = (
    _tick,
    _join,
    _note_devices,
    _judge,
    _take_back,
    _step_forward,
    _release,
    _open_window,
    _draw,
    _time_out,
    _wait,
)
"""In this order: what is known, the way back, the step forward, the arms, the end of patience, what is missing."""


def _bundle(state: RolloutState) -> str:
    return f"{state.candidate.name} {state.candidate.version}"


def _stage(plan: Plan, index: int) -> str:
    stage = plan.stages[index]
    some = f"{stage.devices} device{'s' * (stage.devices > 1)}" if stage.devices else f"{100 * (stage.share or 0):g} %"
    size = "all devices" if stage.full else some
    return f"stage {index + 1} of {len(plan.stages)}, {stage.kind} on {size}"


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed) if len(listed) <= NAMES_SHOWN else f"{len(listed)} devices"


def _drawn(candidates: list[str], controls: list[str]) -> str:
    parts = [f"new version on {_names(candidates)}"] if candidates else []
    parts += [f"old version as control on {_names(controls)}"] if controls else []
    return "; ".join(parts) + " (drawn by site and profile)"


def _ending(state: RolloutState, evidence: Evidence) -> str:
    here = [name for name in state.with_role("candidate") if name in evidence.online]
    away = [name for name in state.with_role("candidate") if name not in evidence.online]
    parts = [f"{_bundle(state)} runs on {_names(here)}"]
    parts += [f"{_names(away)} cannot be reached and will join later"] if away else []
    refused = state.with_role("refused")
    parts += [f"{_names(refused)} refused it"] if refused else []
    return "; ".join(parts)
