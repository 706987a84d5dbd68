"""What a rollout knows and what it may decide: state, evidence and decisions as frozen values; pure.

Rules:
- The state alone, kept as JSON, is enough to go on after a restart; `apply` is the only way to change it.
- Every decision says why in plain words; those that merely keep books (`UNLOGGED`) are not logged.
- `wanted_bundles` says what the state asks of every device: repeating it changes nothing.
"""

from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cloud.gates import Counts, GateAnswer
from edge.wire.base import BundleRef
from edge.wire.messages import DesiredBundles
from edge.wire.terms import SlotState

Status = Literal["running", "paused", "done", "rolled_back", "aborted"]
Role = Literal["waiting", "control", "candidate", "refused", "failed", "already"]
"""`waiting`: old version, not compared. `control`: old version, compared. `candidate`: should run the new one.
`refused`: would not take it. `failed`: went back by itself. `already`: ran it before the rollout, takes no part."""

OPEN: tuple[Status, ...] = ("running", "paused")
NOT_STARTED = -1


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class DeviceView(_Value):
    """One device as the cloud last saw it."""

    device: str
    site: str
    profile: str
    online: bool = False
    silent_s: float = 0.0
    """Seconds since anything was heard of it."""
    active: BundleRef | None = None
    """What it should run: the one desired last, or the one it serves where nothing was desired or that one is bad."""
    serving: str | None = None
    """Digest of the bundle that decides now."""
    slot: SlotState | None = None
    """State of the candidate in its slots; None when it is not there."""
    failure: str = ""
    """Why it went back from the candidate by itself; empty if it has not."""
    refusal: str = ""
    """Why it will not take the candidate, now that it has been asked; empty if it has not said so."""


class Evidence(_Value):
    """What is known at one look; the counts belong to one stage."""

    stage: int = NOT_STARTED
    devices: list[DeviceView] = Field(default_factory=list)
    candidate: dict[str, Counts] = Field(default_factory=dict)
    """By gate key: the candidate's digest on the candidate's devices since the stage began."""
    control: dict[str, Counts] = Field(default_factory=dict)
    """By gate key: the old digest on the control devices since the stage began, or from before (`concurrent`)."""
    concurrent: bool = True
    notes: dict[str, str] = Field(default_factory=dict)
    """By gate key: what keeps its evidence from coming, for a person."""

    @cached_property
    def online(self) -> dict[str, DeviceView]:
        """The devices that can be reached, by name; made once, because every rule asks and a fleet is large."""
        return {view.device: view for view in self.devices if view.online}


class Member(_Value):
    """One device of the cohort."""

    role: Role = "waiting"
    stratum: str
    previous: BundleRef | None
    """What it goes back to."""
    staged: bool = False
    """Asked to have the candidate on disk."""
    why: str = ""
    joined: int = NOT_STARTED
    """The stage in which it joined."""


class RolloutState(_Value):
    """All that a rollout remembers."""

    rollout: str
    candidate: BundleRef
    seed: int
    started_at_ms: int
    status: Status = "running"
    stage: int = NOT_STARTED
    stage_since_ms: int = 0
    """Wall clock of the cloud: evidence received before does not count for the stage."""
    stage_elapsed_ms: int = 0
    """Time served in the stage, without pauses and jumps of the clock."""
    window_seen: bool = False
    """The stage's maintenance window has been open since it began."""
    last_tick_ms: int = 0
    members: dict[str, Member] = Field(default_factory=dict)
    answers: dict[str, GateAnswer] = Field(default_factory=dict)
    """Of the stage's gates at the last look, by gate key."""
    why: str = ""
    """Reason of the last decision that moved it."""
    waiting_for: list[str] = Field(default_factory=list)
    """What keeps it from the next step, in words, at the last look."""

    @property
    def open(self) -> bool:
        return self.status in OPEN

    def with_role(self, *roles: Role) -> list[str]:
        """Return the names of the members in these roles, sorted."""
        return sorted(name for role in roles for name in self._by_role.get(role, ()))

    def count(self, role: Role) -> int:
        """Return how many members are in a role."""
        return len(self._by_role.get(role, ()))

    @property
    def cohort(self) -> int:
        """Number of devices that the shares are taken of."""
        return len(self.members) - self.count("already")

    @cached_property
    def _by_role(self) -> dict[Role, list[str]]:
        """Names by role, sorted; counted once for each set of members, because every rule asks and a fleet is large."""
        names: dict[Role, list[str]] = {}
        for name in sorted(self.members):
            names.setdefault(self.members[name].role, []).append(name)
        return names


class _Decision(_Value):
    reason: str = ""

    def applied(self, state: RolloutState) -> RolloutState:
        """Return the state after this decision."""
        return state


class Ticked(_Decision):
    """Time has passed."""

    step: Literal["ticked"] = "ticked"
    now_ms: int
    elapsed_ms: int

    def applied(self, state: RolloutState) -> RolloutState:
        served = state.stage_elapsed_ms + (self.elapsed_ms if state.status == "running" else 0)
        return _with(state, last_tick_ms=self.now_ms, stage_elapsed_ms=served)


class DevicesJoined(_Decision):
    """Devices became part of the cohort."""

    step: Literal["devices_joined"] = "devices_joined"
    members: dict[str, Member]

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, members={**state.members, **self.members})


class StageEntered(_Decision):
    """A new stage begins, with a clock and evidence of its own."""

    step: Literal["stage_entered"] = "stage_entered"
    stage: int
    now_ms: int

    def applied(self, state: RolloutState) -> RolloutState:
        begun = {"stage": self.stage, "stage_since_ms": self.now_ms, "stage_elapsed_ms": 0, "window_seen": False}
        return _with(state, **begun, answers={}, why=self.reason)


class WindowOpened(_Decision):
    """The maintenance window that the stage waited for has come; its clock and its evidence begin here."""

    step: Literal["window_opened"] = "window_opened"
    now_ms: int

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, window_seen=True, stage_since_ms=self.now_ms, answers={}, why=self.reason)


class DevicesStaged(_Decision):
    """Devices are asked to have the candidate on disk, and go on with the old version."""

    step: Literal["devices_staged"] = "devices_staged"
    devices: list[str]

    def applied(self, state: RolloutState) -> RolloutState:
        return _members(state, self.devices, staged=True, why=self.reason)


class DevicesAssigned(_Decision):
    """Devices were drawn into the arms."""

    step: Literal["devices_assigned"] = "devices_assigned"
    candidates: list[str] = Field(default_factory=list)
    controls: list[str] = Field(default_factory=list)

    def applied(self, state: RolloutState) -> RolloutState:
        state = _members(state, self.candidates, role="candidate", why=self.reason)
        return _members(state, self.controls, role="control", why=self.reason)


class DevicesReleased(_Decision):
    """Devices left their arm: they wait, with the old version."""

    step: Literal["devices_released"] = "devices_released"
    devices: list[str]

    def applied(self, state: RolloutState) -> RolloutState:
        return _members(state, self.devices, role="waiting", why=self.reason)


class DeviceRefused(_Decision):
    """A device would not take the candidate; it keeps what it has."""

    step: Literal["device_refused"] = "device_refused"
    device: str

    def applied(self, state: RolloutState) -> RolloutState:
        return _members(state, [self.device], role="refused", staged=False, why=self.reason)


class DeviceFailed(_Decision):
    """A device went back to its last good version by itself."""

    step: Literal["device_failed"] = "device_failed"
    device: str

    def applied(self, state: RolloutState) -> RolloutState:
        return _members(state, [self.device], role="failed", staged=False, why=self.reason)


class GatesJudged(_Decision):
    """The gates' present answers."""

    step: Literal["gates_judged"] = "gates_judged"
    answers: list[GateAnswer]

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, answers={answer.gate: answer for answer in self.answers})


class Waited(_Decision):
    """What keeps the rollout from its next step now."""

    step: Literal["waited"] = "waited"
    missing: list[str]

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, waiting_for=self.missing)


class GatePassed(_Decision):
    """A gate's answer has become "pass"."""

    step: Literal["gate_passed"] = "gate_passed"
    answer: GateAnswer


class GateFailed(_Decision):
    """A gate's answer has become "fail"."""

    step: Literal["gate_failed"] = "gate_failed"
    answer: GateAnswer


class GateNeedsMore(_Decision):
    """A gate has begun to wait for evidence."""

    step: Literal["gate_needs_more"] = "gate_needs_more"
    answer: GateAnswer


class RolledBack(_Decision):
    """All devices go back to what they ran before."""

    step: Literal["rolled_back"] = "rolled_back"

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, status="rolled_back", why=self.reason, waiting_for=[])


class Finished(_Decision):
    """The candidate is the version of the cohort now."""

    step: Literal["finished"] = "finished"

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, status="done", why=self.reason, waiting_for=[])


class Paused(_Decision):
    """No step forward until someone says so."""

    step: Literal["paused"] = "paused"
    who: str

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, status="paused", why=self.reason)


class Resumed(_Decision):
    """On again, with the stage's time anew; its evidence stays."""

    step: Literal["resumed"] = "resumed"
    who: str

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, status="running", stage_elapsed_ms=0, why=self.reason)


class Aborted(_Decision):
    """A person took it back."""

    step: Literal["aborted"] = "aborted"
    who: str

    def applied(self, state: RolloutState) -> RolloutState:
        return _with(state, status="aborted", why=self.reason, waiting_for=[])


Decision = (
    Ticked
    | DevicesJoined
    | StageEntered
    | WindowOpened
    | DevicesStaged
    | DevicesAssigned
    | DevicesReleased
    | DeviceRefused
    | DeviceFailed
    | GatesJudged
    | Waited
    | GatePassed
    | GateFailed
    | GateNeedsMore
    | RolledBack
    | Finished
    | Paused
    | Resumed
    | Aborted
)
UNLOGGED: tuple[str, ...] = ("ticked", "gates_judged", "waited")


def apply(state: RolloutState, decision: Decision) -> RolloutState:
    """Return the state after a decision."""
    return decision.applied(state)


def wanted_bundles(state: RolloutState) -> dict[str, DesiredBundles]:
    """Return what every member should hold of the model. Members that take no part are left out.

    Members of whom the same is wanted share one value: it is frozen, and a fleet is large.
    """
    shared: dict[tuple[BundleRef | None, bool, Role], DesiredBundles] = {}
    wanted = {}
    for name in sorted(state.members):
        member = state.members[name]
        if member.role == "already":
            continue
        kind = (member.previous, member.staged, member.role)
        if kind not in shared:
            shared[kind] = _wanted(state, member)
        wanted[name] = shared[kind]
    return wanted


def _wanted(state: RolloutState, member: Member) -> DesiredBundles:
    spared = member.role in ("refused", "failed")
    if state.status in ("rolled_back", "aborted") or spared:
        return DesiredBundles(active=member.previous)
    if state.status == "done" or member.role == "candidate":
        return DesiredBundles(active=state.candidate)
    return DesiredBundles(active=member.previous, candidate=state.candidate if member.staged else None)


def _with(state: RolloutState, **changes: object) -> RolloutState:
    changed = state.model_copy(update=changes)
    if "members" in changes:
        changed.__dict__.pop("_by_role", None)
    return changed


def _members(state: RolloutState, names: list[str], **changes: object) -> RolloutState:
    changed = {name: state.members[name].model_copy(update=changes) for name in names}
    return _with(state, members={**state.members, **changed})
