"""Rollouts: where each stands, what its gates know and what they still need, and why.

Rules:
- A gate's evidence is shown as its interval against tolerance and margin, exactly as the rule judged it.
- What is still missing is said wherever a rollout is shown: a rollout never just "runs".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from cloud.console import charts
from cloud.console.views.switching import Moved, switched, went_back
from cloud.console.words import duration, percent, plural
from cloud.gates import GateAnswer, GateSpec
from cloud.plans import Plan, Stage
from cloud.rollout_state import RolloutState
from cloud.tables import rollout_log, rollouts

MAX_LISTED = 200
MAX_MEMBERS = 200
"""Devices shown of an arm: a page of a hundred thousand is none."""
LOG_ROWS = 200
STAGE_NAMES = {"shadow": "Shadow", "canary": "Canary", "ramp": "Ramp", "switch": "Switch"}
ROLES = (
    ("candidate", "New version", "decide with the new version"),
    ("control", "Control group", "decide with the old version at the same time, for comparison"),
    ("waiting", "Waiting", "old version, not compared yet"),
    ("refused", "Refused it", "would not take the bundle and keep what they have"),
    ("failed", "Went back", "returned to their last good version by themselves"),
    ("already", "Had it before", "ran it before the rollout began and take no part"),
)
AFTERWARDS = {
    "candidate": "had the new version, and are back on what they had before",
    "control": "decided with the old version at the same time, for comparison",
    "waiting": "kept the old version, and were not compared",
    "refused": "would not take the bundle, and kept what they had",
}
"""Of a rollout that was taken back or aborted."""
GATE_NAMES = {
    "deferral": "Deferred",
    "errors": "Errors",
    "deadline": "Deadline missed",
    "latency": "Too slow",
    "latency_p99": "Slower than p99",
    "disagreement": "Disagreement",
    "crashes": "Crashes",
    "drift": "Input drift",
    "memory": "Memory",
    "wrong": "Wrong, by review",
    "escape": "Escapes, by review",
    "false_reject": "False rejects, by review",
}

StepState = Literal["passed", "now", "failed", "ahead"]


@dataclass(frozen=True)
class Step:
    """One stage of the track."""

    name: str
    state: StepState
    words: str


@dataclass(frozen=True)
class RolloutLine:
    """One rollout in a list."""

    id: str
    model: str
    version: str
    previous: str
    """Versions that its devices had before."""
    status: str
    stages: list[Step]
    stage_words: str
    missing: str
    why: str
    created_at_ms: int
    created_by: str
    updated_at_ms: int


@dataclass(frozen=True)
class Gate:
    """One gate of the present stage with its evidence drawn."""

    name: str
    asks: str
    verdict: str
    """`pass`, `fail`, `need_more`, or `not_judged` before the first look."""
    answer: GateAnswer | None
    interval: charts.Interval | None
    tolerance_x: float | None


@dataclass(frozen=True)
class Member:
    """One device of the cohort."""

    device: str
    stratum: str
    previous: str | None
    staged: bool
    why: str


@dataclass(frozen=True)
class Arm:
    """The devices in one role."""

    role: str
    name: str
    words: str
    members: list[Member]
    """The first of them by name."""
    count: int


@dataclass(frozen=True)
class LogLine:
    """One step with its reason."""

    at_ms: int
    step: str
    reason: str
    kind: str
    """`ok`, `bad` or `info`: how it is marked."""


@dataclass(frozen=True)
class RolloutPage:
    """Everything about one rollout."""

    line: RolloutLine
    digest: str
    gates: list[Gate]
    arms: list[Arm]
    log: list[LogLine]
    error: float
    on_timeout: str
    stage_left: str
    stage_ends_ms: int | None
    """When the stage has lasted as long as it may, if its clock goes on; None when it stands still."""
    bounds: list[str]
    """Within which hours, and with how many downloads at a time, devices are changed."""
    also_waits: list[str]
    """What it waits for beside its gates."""
    is_open: bool
    switched: Moved | None
    """How far apart devices switched, of a plan that switches all at once."""
    went_back: Moved | None
    """How soon they were back."""


def open_rollouts(connection: Connection) -> list[RolloutLine]:
    """Return the rollouts that run or pause, newest first."""
    return _lines(connection, only_open=True)


def all_rollouts(connection: Connection) -> list[RolloutLine]:
    """Return the newest rollouts, open ones first."""
    lines = _lines(connection, only_open=False)
    return sorted(lines, key=lambda line: line.status not in ("running", "paused"))


def rollout_page(connection: Connection, rollout: str) -> RolloutPage | None:
    """Return one rollout, or None where there is none of this identity."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == rollout)).mappings().first()
    if row is None:
        return None
    plan, state = _read(row)
    stage = plan.stages[state.stage] if 0 <= state.stage < len(plan.stages) else None
    return RolloutPage(
        line=_line(row, plan, state),
        digest=row["digest"],
        gates=[_gate(spec, state.answers.get(spec.key)) for spec in (stage.gates if stage else [])],
        arms=_arms(state),
        log=_log(connection, rollout),
        error=plan.error,
        on_timeout=plan.on_timeout.replace("_", " "),
        stage_left=_time_words(stage, state) if stage and state.open else "",
        stage_ends_ms=_stage_ends_ms(stage, state) if stage else None,
        bounds=_bounds(plan, stage) if stage and state.open else [],
        also_waits=_beside_gates(state),
        is_open=state.open,
        switched=switched(connection, state) if any(one.kind == "switch" for one in plan.stages) else None,
        went_back=None if state.open else went_back(connection, state),
    )


def _lines(connection: Connection, *, only_open: bool) -> list[RolloutLine]:
    query = select(rollouts).order_by(rollouts.c.created_at_ms.desc()).limit(MAX_LISTED)
    if only_open:
        query = query.where(rollouts.c.status.in_(("running", "paused")))
    return [_line(row, *_read(row)) for row in connection.execute(query).mappings()]


def _read(row: Mapping[Any, Any]) -> tuple[Plan, RolloutState]:
    return Plan.model_validate(row["plan"]), RolloutState.model_validate(row["state"])


def _line(row: Mapping[Any, Any], plan: Plan, state: RolloutState) -> RolloutLine:
    now = state.stage if 0 <= state.stage < len(plan.stages) else None
    before = sorted({m.previous.version for m in state.members.values() if m.previous and m.role != "already"})
    return RolloutLine(
        **{name: row[name] for name in ("id", "model", "version", "status")},
        previous=", ".join(version for version in before if version != row["version"]),
        stages=[_step(i, stage, state) for i, stage in enumerate(plan.stages)],
        stage_words="not started yet"
        if now is None
        else f"{_stage_name(plan.stages[now])}, stage {now + 1} of {len(plan.stages)}",
        missing=_missing(plan.stages[now], state) if now is not None and state.open else "",
        why=state.why,
        created_at_ms=row["created_at_ms"],
        created_by=row["created_by"],
        updated_at_ms=row["updated_at_ms"],
    )


def _step(index: int, stage: Stage, state: RolloutState) -> Step:
    if state.status == "done" or index < state.stage:
        return Step(_stage_name(stage), "passed", "passed")
    if index > state.stage:
        return Step(_stage_name(stage), "ahead", "" if state.open else "not reached")
    if state.status == "rolled_back":
        return Step(_stage_name(stage), "failed", "taken back here")
    if state.status == "aborted":
        return Step(_stage_name(stage), "failed", "aborted here")
    paused = "paused, " if state.status == "paused" else ""
    return Step(_stage_name(stage), "now", f"{paused}{duration(state.stage_elapsed_ms)} in")


def _stage_name(stage: Stage) -> str:
    name = STAGE_NAMES.get(stage.kind, stage.kind)
    if stage.devices is not None:
        return f"{name} {plural(stage.devices, 'device')}"
    return f"{name} {percent(stage.share)}" if stage.kind != "switch" and stage.share else name


def _missing(stage: Stage, state: RolloutState) -> str:
    """Return what keeps the stage from passing, in a few words."""
    waiting = [answer for answer in state.answers.values() if answer.verdict == "need_more"]
    needed = [answer.missing for answer in waiting if answer.missing]
    if stage.gates and not state.answers:
        return "no evidence yet"
    if waiting and not needed:
        return "no answer within reach as it looks now"
    if needed:
        most = max(needed, key=lambda missing: (missing.eta_s or 0.0, missing.candidate))
        gates = gate_name(waiting[0].gate) if len(waiting) == 1 else plural(len(waiting), "gate")
        eta = f", about {duration(most.eta_s * 1000)}" if most.eta_s is not None else ""
        return f"{gates} still open: about {plural(most.candidate, 'more case', 'more cases')}{eta}"
    return "; ".join(_beside_gates(state)[:1])


def _beside_gates(state: RolloutState) -> list[str]:
    judged = {answer.words for answer in state.answers.values()}
    return [words for words in state.waiting_for if words not in judged]


def _time_words(stage: Stage, state: RolloutState) -> str:
    left_ms = max(0.0, stage.max_s * 1000 - state.stage_elapsed_ms)
    return f"{duration(state.stage_elapsed_ms)} in this stage, at most {duration(left_ms)} more"


def _stage_ends_ms(stage: Stage, state: RolloutState) -> int | None:
    if state.status != "running" or (stage.window is not None and not state.window_seen):
        return None
    return state.last_tick_ms + int(max(0.0, stage.max_s * 1000 - state.stage_elapsed_ms))


def _bounds(plan: Plan, stage: Stage) -> list[str]:
    found = []
    if stage.window is not None:
        early = ", downloads before" if stage.download_early and stage.kind != "shadow" else ""
        found.append(f"maintenance window {stage.window.words()}{early}")
    if plan.max_parallel_downloads is not None:
        found.append(f"at most {plural(plan.max_parallel_downloads, 'download')} at a time")
    return found


def gate_name(key: str) -> str:
    return GATE_NAMES.get(key, GATE_NAMES.get(key.split("_over_")[0], key.replace("_", " ")))


def _gate(spec: GateSpec, answer: GateAnswer | None) -> Gate:
    over = f" than {spec.limit_ms:g} ms" if spec.limit_ms else ""
    worse = "of the inputs decided otherwise" if spec.paired else "points worse"
    worse = "point worse" if spec.margin == 0.01 and not spec.paired else worse
    asks = f"less than {spec.margin * 100:g} {'% ' if spec.paired else ''}{worse}{over and '; slower' + over}"
    if answer is None:
        return Gate(gate_name(spec.key), asks, "not_judged", None, None, None)
    drawn = charts.interval(answer.low, answer.high, answer.harm, answer.margin)
    span = drawn.end_value - drawn.start_value
    return Gate(
        name=gate_name(spec.key),
        asks=asks,
        verdict=answer.verdict,
        answer=answer,
        interval=drawn,
        tolerance_x=round(100 * (answer.tolerance - drawn.start_value) / span, 2),
    )


def _arms(state: RolloutState) -> list[Arm]:
    found = []
    ended = AFTERWARDS if state.status in ("rolled_back", "aborted") else {}
    for role, name, words in ROLES:
        names = [device for device, member in state.members.items() if member.role == role]
        members = [
            Member(device, m.stratum, m.previous.version if m.previous else None, m.staged, m.why)
            for device, m in ((device, state.members[device]) for device in sorted(names)[:MAX_MEMBERS])
        ]
        if members:
            found.append(Arm(role, name, ended.get(role, words), members, len(names)))
    return found


def _log(connection: Connection, rollout: str) -> list[LogLine]:
    c = rollout_log.c
    query = select(c.at_ms, c.step, c.reason).where(c.rollout == rollout).order_by(c.id.desc()).limit(LOG_ROWS)
    return [LogLine(row.at_ms, row.step, row.reason, _kind(row.step)) for row in connection.execute(query)]


def _kind(step: str) -> str:
    if step in ("gate_failed", "rolled_back", "aborted", "device_failed", "device_refused"):
        return "bad"
    return "ok" if step in ("gate_passed", "finished") else "info"
