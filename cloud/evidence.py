"""Counts what the gates ask for, per arm and stage, out of the tables; and how each device of the cohort does.

Rules:
- A decision counts for an arm only if it was made by the arm's version on a device of that arm: the candidate's
  digest on candidates, each control's own previous digest on controls.
- Only what was received since the stage began counts, and of that only what the device's clock does not place
  well before it: an outbox that empties late must not pose as the present.
- Where no control group is left, the old version's decisions of the cohort from before the stage are the control.
- An audit counts once, by its latest answer; "can't tell" does not count; labels of deferred items are no errors. What
  it was drawn from is counted beside it (`cloud.audit_samples`).
- The p99 that a `latency_p99` gate asks for is the old version's before the rollout: fixed while one looks.
- Counts of times long past are kept in memory and not asked for again: a look costs what is new.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select, text
from sqlalchemy.sql.elements import ColumnElement

from cloud import audit_samples, tables, window_counts
from cloud.arms import CLOCK_SLACK_MS, Arm, Counted, Tally
from cloud.audit_samples import SIDES
from cloud.fleet import DeviceView as FleetView
from cloud.gates import Counts, GateSpec
from cloud.plans import Plan
from cloud.rollout_state import NOT_STARTED, DeviceView, Evidence, RolloutState
from cloud.window_counts import MIN_FOR_P99
from edge.wire.base import BundleRef

SETTLED_AFTER_MS = 30_000
"""A row is stamped before it is committed; after this long no more rows appear with older stamps."""
MAX_KEPT = 64
"""Counts kept between looks, of so many arms and stages; the oldest are counted again when asked for."""
HELD = ("staged", "trial", "good")


class EvidenceReader:
    """Reads evidence from the tables. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._settled: dict[tuple[Any, ...], tuple[int, Tally]] = {}
        self._p99s: dict[str, float] = {}
        """Rollout → the old version's p99 before it, milliseconds."""

    def collect(
        self, connection: Connection, plan: Plan, state: RolloutState, fleet: Iterable[FleetView], now_ms: int
    ) -> Evidence:
        """Return what is known now: every device of the cohort, and the counts of the present stage's gates."""
        fleet = list(fleet)
        devices = cohort_views(plan, fleet, now_ms)
        if state.stage == NOT_STARTED or not plan.stages[state.stage].gates:
            return Evidence(stage=state.stage, devices=devices)
        specs = plan.stages[state.stage].gates
        candidate = _candidate_arm(state, now_ms)
        control, concurrent = _control_arm(plan, state, now_ms)
        limits, notes = self._limits(connection, plan, state, specs)
        counts = [self.count(connection, arm, specs, now_ms, limits) for arm in (candidate, control)]
        for arm, counted in zip((candidate, control), counts, strict=True):
            counted |= {s.key: memory_counts(fleet, arm.digests, plan.model, s) for s in specs if s.metric == "memory"}
        return Evidence(
            stage=state.stage,
            devices=devices,
            candidate=counts[0],
            control=counts[1],
            concurrent=concurrent,
            notes=notes,
        )

    def count(
        self,
        connection: Connection,
        arm: Arm,
        specs: list[GateSpec],
        now_ms: int,
        limits: Mapping[str, float] | None = None,
    ) -> dict[str, Counts]:
        """Return bad cases among all cases of an arm, by gate key.

        Args:
            connection: to the tables.
            arm: which version on which devices, and when.
            specs: the gates.
            now_ms: the cloud's clock.
            limits: milliseconds of the `latency_p99` gates by their key; one that is missing counts nothing.
        """
        if not arm.digests:
            return {}
        asked = {spec.metric for spec in specs}
        counts: dict[str, Counts] = {}
        if asked & set(_BAD):
            counts |= self._of_decisions(connection, arm, specs, now_ms, limits or {})
        if asked & set(SIDES):
            drawn = self._tally(connection, arm, now_ms, ("drawn",), audit_samples.drawn)
            counts |= audit_samples.counts(connection, arm, asked, _of_arm(arm, drawn))
        if asked & {"crashes", "drift"}:
            seen = _of_arm(arm, self._tally(connection, arm, now_ms, ("windows",), window_counts.windows))
            counts["crashes"] = Counts(bad=seen["crashed"], n=seen["n"])
            if "drift" in asked:
                counts["drift"] = Counts(bad=min(window_counts.drifted(connection, arm), seen["n"]), n=seen["n"])
        if "disagreement" in asked:
            judged = _of_arm(arm, self._tally(connection, arm, now_ms, ("judged",), window_counts.judged_by_both))
            counts["disagreement"] = Counts(bad=judged["n"] - judged["agreed"], n=judged["n"])
        return {spec.key: counts[spec.key] for spec in specs if spec.key in counts}

    def _of_decisions(
        self, connection: Connection, arm: Arm, specs: list[GateSpec], now_ms: int, limits: Mapping[str, float]
    ) -> dict[str, Counts]:
        known = [s for s in specs if s.metric in _BAD and (s.metric != "latency_p99" or s.key in limits)]
        bad = {spec.key: _BAD[spec.metric](spec, limits.get(spec.key, 0.0)) for spec in known}

        def counted(connection: Connection, arm: Arm, from_ms: int, until_ms: int) -> Tally:
            return _decisions(connection, arm, bad, from_ms, until_ms)

        name = (*sorted(bad), *sorted(limits.values()))
        total = _of_arm(arm, self._tally(connection, arm, now_ms, name, counted))
        if "errors" in bad:
            total["errors"] += _outcomes_gone_wrong(connection, arm)
        return {key: Counts(bad=min(total[key], total["n"]), n=total["n"]) for key in bad}

    def _tally(self, connection: Connection, arm: Arm, now_ms: int, what: tuple[Any, ...], counted: Counted) -> Tally:
        """Return counts by device and digest; those of times long past are kept under the arm's and their own name."""
        name = (what, tuple(sorted(set(arm.digests.values()))), arm.since_ms)
        through_ms, settled = self._settled.pop(name, (arm.since_ms, {}))
        horizon_ms = min(arm.until_ms, max(now_ms - SETTLED_AFTER_MS, arm.since_ms))
        if horizon_ms < through_ms:  # the clock went back: what was settled is not
            through_ms, settled = arm.since_ms, {}
        if horizon_ms > through_ms:
            settled = _sum(settled, counted(connection, arm, through_ms, horizon_ms))
        self._settled[name] = (max(horizon_ms, through_ms), settled)
        while len(self._settled) > MAX_KEPT:
            del self._settled[next(iter(self._settled))]
        return _sum(settled, counted(connection, arm, horizon_ms, arm.until_ms))

    def _limits(
        self, connection: Connection, plan: Plan, state: RolloutState, specs: list[GateSpec]
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Return the limits of the `latency_p99` gates, and for those that have none yet why."""
        keys = [spec.key for spec in specs if spec.metric == "latency_p99"]
        if not keys:
            return {}, {}
        limit = self._p99s.get(state.rollout)
        if limit is None:
            since_ms = state.started_at_ms - int(plan.baseline_s * 1000)
            arm = Arm(_previous(state, state.members), since_ms, state.started_at_ms)
            limit, seen = window_counts.p99_ms(connection, arm)
            if limit is None:
                words = f"p99 of the old version: {seen} decisions before the rollout, {MIN_FOR_P99} are needed"
                return {}, dict.fromkeys(keys, words)
            self._p99s = {state.rollout: limit, **dict(list(self._p99s.items())[:MAX_KEPT])}
        return dict.fromkeys(keys, limit), {}


def memory_counts(fleet: Iterable[FleetView], digests: Mapping[str, str], model: str, spec: GateSpec) -> Counts:
    """Return how many devices of an arm take more memory than the gate allows, of those that serve its version now."""
    taken = [
        device.reported["health"]["memory_bytes"]
        for device in fleet
        if device.reported
        and device.device in digests
        and (_serving(device.reported, model) or {}).get("digest") == digests[device.device]
    ]
    return Counts(bad=sum(size > (spec.limit_mb or 0.0) * 1e6 for size in taken), n=len(taken))


def cohort_views(plan: Plan, fleet: Iterable[FleetView], now_ms: int) -> list[DeviceView]:
    """Return the devices of the plan's cohort as the rule of rollouts sees them."""
    return [
        device_view(device, plan.model, plan.digest, now_ms)
        for device in fleet
        if _runs(device, plan.model) and plan.cohort.holds(device.device, device.site, device.profile, device.tags)
    ]


def device_view(device: FleetView, model: str, digest: str, now_ms: int) -> DeviceView:
    """Return one device as the rule of rollouts sees it, with respect to one model and candidate digest."""
    reported = device.reported or {}
    slots = {slot["bundle"]["digest"]: slot for slot in reported.get("slots", {}).get(model, [])}
    slot = slots.get(digest)
    state = slot["state"] if slot else None
    reasons = [r["reason"] for r in reported.get("refusals", []) if r["bundle"]["digest"] == digest]
    applied = reported.get("config_version", 0) >= (device.desired or {}).get("config_version", 0)
    bad_because = (slot or {}).get("reason") or "no reason given"
    # A bundle that did not open here is refused with the reason for which its slot is bad; one that failed on trial
    # has a reason of its own.
    failed = state == "bad" and bad_because not in reasons
    refused = reasons[-1] if reasons and applied and state not in HELD and not failed else ""
    serving = _serving(reported, model)
    return DeviceView(
        device=device.device,
        site=device.site,
        profile=device.profile,
        online=device.freshness == "fresh",
        silent_s=max(0.0, (now_ms - device.last_heard_at_ms) / 1000) if device.last_heard_at_ms else float("inf"),
        active=_active(device, model, slots, serving),
        serving=serving["digest"] if serving else None,
        slot=state,
        failure=bad_because if failed else "",
        refusal=refused,
    )


def _runs(device: FleetView, model: str) -> bool:
    return model in device.models or model in (device.reported or {}).get("slots", {})


def _serving(reported: Mapping[str, Any], model: str) -> dict[str, Any] | None:
    system = reported.get("os") or {}
    if system.get("model") == model:
        return dict(system["serving"])
    stations = reported.get("stations", {}).values()
    return next((s["serving"] for s in stations if s["model"] == model and s.get("serving")), None)


def _active(
    device: FleetView, model: str, slots: Mapping[str, Any], serving: dict[str, Any] | None
) -> BundleRef | None:
    desired = (device.desired or {}).get("bundles", {}).get(model, {}).get("active")
    if desired is not None and slots.get(desired["digest"], {}).get("state") != "bad":
        return BundleRef.model_validate(desired)
    return BundleRef.model_validate(serving) if serving else None


def _candidate_arm(state: RolloutState, now_ms: int) -> Arm:
    """Return the devices that decide by the candidate; in the shadow, where none does, those that hold it."""
    names = state.with_role("candidate") or [name for name, member in state.members.items() if member.staged]
    digests = dict.fromkeys(names, state.candidate.digest)
    return Arm(digests, state.stage_since_ms, now_ms + 1)


def _control_arm(plan: Plan, state: RolloutState, now_ms: int) -> tuple[Arm, bool]:
    """Return the arm, and whether it runs at the same time as the candidate's."""
    controls = state.with_role("control")
    if controls:
        return Arm(_previous(state, controls), state.stage_since_ms, now_ms + 1), True
    before_ms = state.started_at_ms - int(plan.baseline_s * 1000)
    return Arm(_previous(state, state.with_role("candidate", "waiting")), before_ms, state.stage_since_ms), False


def _previous(state: RolloutState, names: Iterable[str]) -> dict[str, str]:
    refs = {name: state.members[name].previous for name in names}
    return {name: ref.digest for name, ref in refs.items() if ref is not None}


def _of_arm(arm: Arm, tally: Tally) -> Counter[str]:
    """Return the counts of an arm's version on its own devices, added up."""
    total: Counter[str] = Counter()
    for (device, digest), counted in tally.items():
        if arm.digests.get(device) == digest:
            total.update(counted)
    return total


def _deferral(_spec: GateSpec, _limit_ms: float) -> ColumnElement[bool]:
    return tables.decisions.c.verdict == "defer"


def _errors(_spec: GateSpec, _limit_ms: float) -> ColumnElement[bool]:
    return tables.decisions.c.reason == "model_error"


def _deadline(_spec: GateSpec, _limit_ms: float) -> ColumnElement[bool]:
    return tables.decisions.c.reason == "deadline"


def _latency(spec: GateSpec, limit_ms: float) -> ColumnElement[bool]:
    return tables.decisions.c.latency_ms > (spec.limit_ms or limit_ms)


_BAD = {"deferral": _deferral, "errors": _errors, "deadline": _deadline, "latency": _latency, "latency_p99": _latency}
"""What makes a decision a bad case, by metric."""


def _decisions(
    connection: Connection, arm: Arm, bad: Mapping[str, ColumnElement[bool]], from_ms: int, until_ms: int
) -> Tally:
    if from_ms >= until_ms:
        return {}
    c = tables.decisions.c
    sums = [func.sum(case((condition, 1), else_=0)).label(f"bad_{i}") for i, condition in enumerate(bad.values())]
    query = (
        select(c.device, c.digest, func.count().label("n"), *sums)
        .where(c.digest.in_(set(arm.digests.values())), c.received_at_ms >= from_ms, c.received_at_ms < until_ms)
        .where(c.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
        .group_by(c.device, c.digest)
    )
    return {
        (row[0], row[1]): Counter({"n": int(row[2]), **{key: int(row[3 + i]) for i, key in enumerate(bad)}})
        for row in connection.execute(query)
    }


def _sum(first: Tally, second: Tally) -> Tally:
    return {key: first.get(key, Counter()) + second.get(key, Counter()) for key in first.keys() | second.keys()}


def _outcomes_gone_wrong(connection: Connection, arm: Arm) -> int:
    """Return how many decisions of an arm were well made but came to nothing; each counts once."""
    d, o = tables.decisions.c, tables.outcomes.c
    found = (
        select(d.device, d.incarnation, d.seq, d.digest)
        .join_from(
            tables.outcomes,
            tables.decisions,
            and_(d.device == o.device, d.incarnation == o.incarnation, d.seq == o.decision_seq),
        )
        # In this form, because SQLite must see that the partial index holds all rows asked for.
        .where(text("outcomes.state <> 'done'"), o.received_at_ms >= arm.since_ms)
        .where(d.received_at_ms >= arm.since_ms, d.received_at_ms < arm.until_ms)
        .where(d.digest.in_(set(arm.digests.values())), or_(d.reason.is_(None), d.reason != "model_error"))
        .where(d.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
        .distinct()
        .subquery()
    )
    query = select(found.c.device, found.c.digest, func.count()).group_by(found.c.device, found.c.digest)
    return sum(int(row[2]) for row in connection.execute(query) if arm.digests.get(row[0]) == row[1])
