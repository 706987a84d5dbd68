"""Keeps rollouts in the tables and lets people start, pause, resume and abort them.

Rules:
- State, log, audit row and desired states are one transaction; what is desired is published after it.
- Two rollouts of one model never share a device: the second is refused while the first is open.
- Every move by a person names who and why.
"""

import logging
import random
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, select

from cloud import audit, tables
from cloud.clock import Clock
from cloud.errors import ConflictError, InvalidError, NotFoundError
from cloud.evidence import cohort_views
from cloud.fleet import Fleet, desired_state
from cloud.plans import Plan, PlanShape, for_system
from cloud.registry import Registry
from cloud.rollout_state import (
    OPEN,
    UNLOGGED,
    Aborted,
    Decision,
    Paused,
    Resumed,
    RolloutState,
    apply,
    wanted_bundles,
)
from cloud.services import Services
from cloud.store import CloudStore
from edge.wire.messages import Desired, DesiredBundles

log = logging.getLogger(__name__)

MAX_LOG_LINES = 1000
"""Shown of one rollout; it moves a few dozen times in its life."""


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout as it is kept."""

    id: str
    plan: Plan
    state: RolloutState
    created_at_ms: int
    created_by: str
    updated_at_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return it as a document for machines."""
        stage = self.plan.stages[self.state.stage] if self.state.stage >= 0 else None
        roles = {role: self.state.with_role(role) for role in ("candidate", "control", "waiting", "already")}
        apart = {
            role: {name: self.state.members[name].why for name in self.state.with_role(role)}
            for role in ("refused", "failed")
        }
        return {
            "id": self.id,
            "model": self.plan.model,
            "version": self.plan.version,
            "digest": self.plan.digest,
            "status": self.state.status,
            "why": self.state.why,
            "stage": None
            if stage is None
            else {
                "number": self.state.stage + 1,
                "of": len(self.plan.stages),
                "kind": stage.kind,
                "elapsed_s": self.state.stage_elapsed_ms / 1000,
                "min_s": stage.min_s,
                "max_s": stage.max_s,
                "window": None if stage.window is None else stage.window.words(),
            },
            "arms": {**roles, **apart},
            "gates": [answer.model_dump(mode="json") for answer in self.state.answers.values()],
            "waiting_for": self.state.waiting_for,
            "plan": self.plan.model_dump(mode="json"),
            "created_at_ms": self.created_at_ms,
            "created_by": self.created_by,
            "updated_at_ms": self.updated_at_ms,
        }


class RolloutBook:
    """The rollouts of a control plane, for people."""

    def __init__(self, store: CloudStore, clock: Clock, fleet: Fleet, registry: Registry, rng: random.Random) -> None:
        self._store = store
        self._clock = clock
        self._fleet = fleet
        self._registry = registry
        self._rng = rng

    @classmethod
    def of(cls, services: Services) -> "RolloutBook":
        """Return the book of this control plane."""
        return cls(services.store, services.clock, services.fleet, services.registry, random.SystemRandom())

    def start(
        self, name: str, version: str, shape: PlanShape, *, who: str, why: str = "", unaudited: str = ""
    ) -> RolloutRecord:
        """Start a rollout of a published bundle; the conductor takes its first step.

        Args:
            name, version: of the bundle.
            shape: how it is rolled out.
            who, why: who starts it, for the audit log.
            unaudited: why it may be without an audit that passed.

        Raises:
            NotFoundError: the bundle has not been published.
            InvalidError: no device of the cohort runs the model, or the plan has gates, and it is an operating system.
            ConflictError: another rollout of the model is open, all devices run it already, it was retired, or its
                audit did not pass and no reason is given.
        """
        bundle = self._registry.bundle(name, version)
        if bundle.ref.kind == "os":
            shape = _for_system(shape)
        plan = Plan.of(shape, model=name, version=version, digest=bundle.ref.digest)
        now_ms = self._clock.now_ms()
        self._check_cohort(plan, now_ms)
        state = RolloutState(
            rollout=f"{name[:40]}-{version}-{self._rng.getrandbits(24):06x}",
            candidate=bundle.ref,
            seed=self._rng.getrandbits(32),
            started_at_ms=now_ms,
            why=f"started by {who}" + (f": {why}" if why else ""),
        )
        with self._store.write() as connection:
            self._registry.allow_rollout(connection, bundle.ref, who=who, unaudited=unaudited)
            _check_alone(connection, plan)
            row = {"id": state.rollout, "status": state.status, "model": name, "version": version}
            kept = {"plan": plan.model_dump(mode="json"), "state": state.model_dump(mode="json"), "digest": plan.digest}
            stamps = {"created_at_ms": now_ms, "created_by": who[:64], "updated_at_ms": now_ms}
            connection.execute(tables.rollouts.insert().values(**row, **kept, **stamps))
            write_log(connection, state.rollout, now_ms, "started", state.why)
            data = {"rollout": state.rollout, "model": name, "version": version}
            audit.record(connection, at_ms=now_ms, who=who, what="rollout_started", why=why, data=data)
        return self.rollout(state.rollout)

    def pause(self, rollout: str, *, who: str, why: str) -> RolloutRecord:
        """Let it take no step forward; a failing gate still takes it back.

        Raises:
            NotFoundError, ConflictError: there is no such rollout, or it is not running.
        """
        return self._move(rollout, ("running",), Paused(who=who, reason=_said(who, "paused", why)), why)

    def resume(self, rollout: str, *, who: str, why: str) -> RolloutRecord:
        """Let it go on, with the time of its stage anew.

        Raises:
            NotFoundError, ConflictError: there is no such rollout, or it is not paused.
        """
        return self._move(rollout, ("paused",), Resumed(who=who, reason=_said(who, "resumed", why)), why)

    def abort(self, rollout: str, *, who: str, why: str) -> RolloutRecord:
        """Take it back from all devices.

        Raises:
            NotFoundError, ConflictError: there is no such rollout, or it has ended.
        """
        return self._move(rollout, OPEN, Aborted(who=who, reason=_said(who, "aborted", why)), why)

    def rollouts(self, *, last: int = 50) -> list[RolloutRecord]:
        """Return the newest rollouts, newest first."""
        query = select(tables.rollouts).order_by(tables.rollouts.c.created_at_ms.desc()).limit(last)
        with self._store.read() as connection:
            return [record(row) for row in connection.execute(query)]

    def rollout(self, rollout: str) -> RolloutRecord:
        """Return one rollout.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._store.read() as connection:
            return load(connection, rollout)

    def lines(self, rollout: str) -> list[dict[str, Any]]:
        """Return the log of a rollout, oldest first."""
        c = tables.rollout_log.c
        query = select(c.at_ms, c.step, c.reason, c.data).where(c.rollout == rollout).order_by(c.id.desc())
        with self._store.read() as connection:
            return [row._asdict() for row in connection.execute(query.limit(MAX_LOG_LINES))][::-1]

    def _check_cohort(self, plan: Plan, now_ms: int) -> None:
        views = cohort_views(plan, self._fleet.devices(), now_ms)
        if not views:
            raise InvalidError(
                f"no device of the cohort runs {plan.model}", hint="`lineside-cloud devices` lists what each one runs"
            )
        if all(view.active is not None and view.active.digest == plan.digest for view in views):
            raise ConflictError(f"all {len(views)} devices of the cohort run {plan.model} {plan.version} already")

    def _move(self, rollout: str, allowed: tuple[str, ...], decision: Decision, why: str) -> RolloutRecord:
        now_ms = self._clock.now_ms()
        with self._store.write() as connection:
            kept = load(connection, rollout, lock=True)
            if kept.state.status not in allowed:
                raise ConflictError(f"{rollout} is {kept.state.status}, expected {' or '.join(allowed)}")
            state = apply(kept.state, decision)
            save(connection, state, [decision], now_ms)
            changed = set_desired(connection, self._fleet, state)
            who = getattr(decision, "who", "")
            audit.record(
                connection,
                at_ms=now_ms,
                who=who,
                what=f"rollout_{decision.step}",
                why=why,
                data={"rollout": rollout},
                before={"status": kept.state.status},
                after={"status": state.status},
            )
        self._fleet.publish(changed)
        return self.rollout(rollout)


def load(connection: Connection, rollout: str, *, lock: bool = False) -> RolloutRecord:
    """Return one rollout; with `lock`, hold its row until the transaction ends.

    Raises:
        NotFoundError: there is none of this id.
    """
    query = select(tables.rollouts).where(tables.rollouts.c.id == rollout)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFoundError(f"no rollout is called {rollout!r}", hint="`lineside-cloud rollouts status` lists them")
    return record(row)


def save(connection: Connection, state: RolloutState, made: list[Decision], now_ms: int) -> None:
    """Keep the state, and the decisions that led to it in the log."""
    table = tables.rollouts
    connection.execute(
        table.update()
        .where(table.c.id == state.rollout)
        .values(status=state.status, state=state.model_dump(mode="json"), updated_at_ms=now_ms)
    )
    for decision in made:
        if decision.step not in UNLOGGED:
            data = decision.model_dump(mode="json", exclude={"reason", "step"})
            write_log(connection, state.rollout, now_ms, decision.step, decision.reason, data)


def set_desired(connection: Connection, fleet: Fleet, state: RolloutState) -> list[Desired]:
    """Bring the desired states to what the rollout wants; return those that changed, to be published after commit."""
    devices, desired = tables.devices.c, tables.desired.c
    query = (
        select(devices.device, desired.body)
        .outerjoin_from(tables.devices, tables.desired, desired.device == devices.device)
        .where(devices.revoked_at_ms.is_(None))
    )
    name = state.candidate.name
    have = {row.device: row.body or {} for row in connection.execute(query)}
    changes = []
    for device, wanted in wanted_bundles(state).items():
        if device not in have:
            continue
        bundles = DesiredBundles.model_validate(have[device].get("bundles", {}).get(name) or {})
        if (bundles.active, bundles.candidate) != (wanted.active, wanted.candidate):
            before = desired_state(device, have[device])
            changes.append((before, with_bundles(before, state, wanted)))
    return fleet.keep_desired(connection, changes)


def with_bundles(desired: Desired, state: RolloutState, wanted: DesiredBundles) -> Desired:
    """Return the desired state with what the rollout wants of its model; everything else is kept."""
    name = state.candidate.name
    bundles = desired.bundles.get(name, DesiredBundles())
    bundles = bundles.model_copy(update={"active": wanted.active, "candidate": wanted.candidate})
    return desired.model_copy(update={"bundles": {**desired.bundles, name: bundles}, "rollout": state.rollout})


def write_log(
    connection: Connection, rollout: str, at_ms: int, step: str, reason: str, data: dict[str, Any] | None = None
) -> None:
    """Add one line to a rollout's log."""
    row = {"rollout": rollout, "at_ms": at_ms, "step": step, "reason": reason, "data": data or {}}
    connection.execute(tables.rollout_log.insert().values(**row))


def record(row: Row[Any]) -> RolloutRecord:
    """Return a row of the table as a rollout."""
    return RolloutRecord(
        id=row.id,
        plan=Plan.model_validate(row.plan),
        state=RolloutState.model_validate(row.state),
        created_at_ms=row.created_at_ms,
        created_by=row.created_by,
        updated_at_ms=row.updated_at_ms,
    )


def open_rollouts(connection: Connection) -> list[RolloutRecord]:
    """Return the rollouts that are running or paused, oldest first, but for those that cannot be read."""
    table = tables.rollouts
    query = select(table).where(table.c.status.in_(OPEN)).order_by(table.c.created_at_ms, table.c.id)
    found = []
    for row in connection.execute(query):
        try:
            found.append(record(row))
        except ValidationError:
            log.exception("rollout %s cannot be read; it stays where it is", row.id)
    return found


def _check_alone(connection: Connection, plan: Plan) -> None:
    for other in open_rollouts(connection):
        if other.plan.model == plan.model and other.plan.cohort.may_overlap(plan.cohort):
            raise ConflictError(
                f"{other.id} is {other.state.status}, and devices may belong to both",
                hint=f"wait for its end, or `lineside-cloud rollouts abort {other.id} --why …`",
            )


def _for_system(shape: PlanShape) -> PlanShape:
    try:
        return for_system(shape)
    except ValueError as error:
        raise InvalidError(f"plan: {error}", hint="without a plan: a tenth, half, all") from error


def _said(who: str, what: str, why: str) -> str:
    return f"{what} by {who}: {why}" if why else f"{what} by {who}"
