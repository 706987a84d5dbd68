"""Counts what the gates ask for, per arm and stage, out of the tables; and how each device of the cohort does.

Rules:
- A decision counts for an arm only if it was made by the arm's version on a device of that arm: the candidate's
  digest on candidates, each control's own previous digest on controls.
- Only what was received since the stage began counts, and of that only what the device's clock does not place
  well before it: an outbox that empties late must not pose as the present.
- Where no control group is left, the old version's decisions of the cohort from before the stage are the control.
- An audit counts once, by its latest answer; "can't tell" does not count; labels of deferred items are no errors.
- Counts of times long past are kept in memory and not asked for again: a look costs what is new.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, func, or_, select, text
from sqlalchemy.sql.elements import ColumnElement

from cloud import tables
from cloud.fleet import DeviceView as FleetView
from cloud.gates import Counts, GateSpec
from cloud.plans import Plan
from cloud.rollout_state import NOT_STARTED, DeviceView, Evidence, RolloutState
from edge.wire.base import BundleRef

CLOCK_SLACK_MS = 60_000
"""Devices without a clock module are off by seconds; more than a minute before the stage is not the stage."""
SETTLED_AFTER_MS = 30_000
"""A row is stamped before it is committed; after this long no more rows appear with older stamps."""
MAX_KEPT = 64
"""Counts kept between looks, of so many arms and stages; the oldest are counted again when asked for."""
HELD = ("staged", "trial", "good")

Key = tuple[str, str]
"""Device and digest."""
Tally = dict[Key, Counter[str]]
"""Counts by gate key, and `n` of all decisions."""


@dataclass(frozen=True)
class Arm:
    """Which version on which devices, and received when (Unix milliseconds, until excluded)."""

    digests: Mapping[str, str]
    """Digest of the bundle that counts, per device."""
    since_ms: int
    until_ms: int


class EvidenceReader:
    """Reads evidence from the tables. Belongs to one thread at a time."""

    def __init__(self) -> None:
        self._settled: dict[tuple[Any, ...], tuple[int, Tally]] = {}

    def collect(
        self, connection: Connection, plan: Plan, state: RolloutState, fleet: Iterable[FleetView], now_ms: int
    ) -> Evidence:
        """Return what is known now: every device of the cohort, and the counts of the present stage's gates."""
        devices = cohort_views(plan, fleet, now_ms)
        if state.stage == NOT_STARTED or not plan.stages[state.stage].gates:
            return Evidence(stage=state.stage, devices=devices)
        specs = plan.stages[state.stage].gates
        control, concurrent = _control_arm(plan, state, now_ms)
        return Evidence(
            stage=state.stage,
            devices=devices,
            candidate=self.count(connection, _candidate_arm(state, now_ms), specs, now_ms),
            control=self.count(connection, control, specs, now_ms),
            concurrent=concurrent,
        )

    def count(self, connection: Connection, arm: Arm, specs: list[GateSpec], now_ms: int) -> dict[str, Counts]:
        """Return bad cases among all cases of an arm, by gate key."""
        if not arm.digests:
            return {}
        total: Counter[str] = Counter()
        for key, counted in self._tally(connection, arm, specs, now_ms).items():
            if arm.digests.get(key[0]) == key[1]:
                total.update(counted)
        wrong = _reviewed(connection, arm) if any(spec.metric in _LABELLED for spec in specs) else Counter()
        gone_wrong = _outcomes_gone_wrong(connection, arm) if any(spec.metric == "errors" for spec in specs) else 0
        counts = {}
        for spec in specs:
            if spec.metric in _LABELLED:
                counts[spec.key] = Counts(bad=wrong[f"{spec.metric}.bad"], n=wrong[f"{spec.metric}.n"])
            else:
                more = gone_wrong if spec.metric == "errors" else 0
                counts[spec.key] = Counts(bad=min(total[spec.key] + more, total["n"]), n=total["n"])
        return counts

    def _tally(self, connection: Connection, arm: Arm, specs: list[GateSpec], now_ms: int) -> Tally:
        digests = tuple(sorted(set(arm.digests.values())))
        bad = {spec.key: _BAD[spec.metric](spec) for spec in specs if spec.metric in _BAD}
        name = (digests, tuple(sorted(bad)), arm.since_ms)
        through_ms, settled = self._settled.pop(name, (arm.since_ms, {}))
        horizon_ms = min(arm.until_ms, max(now_ms - SETTLED_AFTER_MS, arm.since_ms))
        if horizon_ms < through_ms:  # the clock went back: what was settled is not
            through_ms, settled = arm.since_ms, {}
        if horizon_ms > through_ms:
            settled = _sum(settled, _decisions(connection, digests, bad, through_ms, horizon_ms, arm.since_ms))
        self._settled[name] = (max(horizon_ms, through_ms), settled)
        while len(self._settled) > MAX_KEPT:
            del self._settled[next(iter(self._settled))]
        return _sum(settled, _decisions(connection, digests, bad, horizon_ms, arm.until_ms, arm.since_ms))


def cohort_views(plan: Plan, fleet: Iterable[FleetView], now_ms: int) -> list[DeviceView]:
    """Return the devices of the plan's cohort as the rule of rollouts sees them."""
    return [
        device_view(device, plan.model, plan.digest, now_ms)
        for device in fleet
        if _runs(device, plan.model) and plan.cohort.holds(device.device, device.site, device.profile)
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
    digests = dict.fromkeys(state.with_role("candidate"), state.candidate.digest)
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


def _deferral(_spec: GateSpec) -> ColumnElement[bool]:
    return tables.decisions.c.verdict == "defer"


def _errors(_spec: GateSpec) -> ColumnElement[bool]:
    return tables.decisions.c.reason == "model_error"


def _deadline(_spec: GateSpec) -> ColumnElement[bool]:
    return tables.decisions.c.reason == "deadline"


def _latency(spec: GateSpec) -> ColumnElement[bool]:
    return tables.decisions.c.latency_ms > (spec.limit_ms or 0.0)


_BAD = {"deferral": _deferral, "errors": _errors, "deadline": _deadline, "latency": _latency}
"""What makes a decision a bad case, by metric."""
_LABELLED = ("wrong", "escape", "false_reject")


def _decisions(
    connection: Connection,
    digests: tuple[str, ...],
    bad: Mapping[str, ColumnElement[bool]],
    from_ms: int,
    until_ms: int,
    since_ms: int,
) -> Tally:
    if from_ms >= until_ms:
        return {}
    c = tables.decisions.c
    sums = [func.sum(case((condition, 1), else_=0)).label(f"bad_{i}") for i, condition in enumerate(bad.values())]
    query = (
        select(c.device, c.digest, func.count().label("n"), *sums)
        .where(c.digest.in_(digests), c.received_at_ms >= from_ms, c.received_at_ms < until_ms)
        .where(c.at_ms >= since_ms - CLOCK_SLACK_MS)
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


def _reviewed(connection: Connection, arm: Arm) -> Counter[str]:
    """Return wrong among reviewed audits of an arm: all, those that passed (escape), those diverted (false reject)."""
    d, r = tables.decisions.c, tables.reviews.c
    query = (
        select(d.device, d.incarnation, d.seq, d.digest, d.verdict, d.label, r.answer, r.label.label("named"))
        .join_from(
            tables.reviews,
            tables.decisions,
            and_(d.device == r.device, d.incarnation == r.incarnation, d.seq == r.seq),
        )
        .where(r.at_ms >= arm.since_ms, r.answer != "cant_tell")
        .where(d.received_at_ms >= arm.since_ms, d.received_at_ms < arm.until_ms)
        .where(d.digest.in_(set(arm.digests.values())), d.reason == "audit", d.verdict != "defer")
        .where(d.at_ms >= arm.since_ms - CLOCK_SLACK_MS)
        .order_by(r.id)
    )
    latest = {(row.device, row.incarnation, row.seq): row for row in connection.execute(query)}
    found: Counter[str] = Counter()
    for row in latest.values():
        if arm.digests.get(row.device) == row.digest:
            wrong = int(is_wrong(row.verdict, row.label, row.answer, row.named))
            for metric in ("wrong", _SIDE.get(row.verdict, "")):
                found[f"{metric}.n"] += 1
                found[f"{metric}.bad"] += wrong
    return found


_SIDE = {"pass": "escape", "divert": "false_reject"}


def is_wrong(verdict: str, label: str | None, answer: str, named: str | None) -> bool:
    """Return whether a person's answer contradicts an automated decision.

    Args:
        verdict: `pass`, `divert` or `accept`.
        label: the class that the decision named.
        answer: the person's verdict.
        named: the class that the person named, if any; it matters for accepted words only.
    """
    return answer != verdict or (verdict == "accept" and named is not None and named != label)
