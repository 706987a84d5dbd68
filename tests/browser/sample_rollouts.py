"""Three rollouts for the sample plant: one done, one taken back, one that still gathers evidence."""

from cloud import gates
from cloud.plans import Plan, PlanShape
from cloud.rollout_state import Member, RolloutState
from tests.cloud.console.plant import Plant, ref

CUT_SHORT = "expected 412345 bytes, got 300000: the file was cut short"
Pair = tuple[int, int]
"""Bad cases of all cases."""
Evidence = dict[str, tuple[Pair, Pair]]
"""(candidate, control) by metric."""


def add_rollouts(plant: Plant, now_ms: int) -> None:
    """Put the rollouts into the plant's tables."""
    done = "every device of the cohort runs phone_glass 1.1.0"
    add_rollout(plant, "phone_glass", "1.1.0", "done", 3, now_ms - 1_600_000, {}, done)
    failing: Evidence = {
        "deferral": ((26, 63), (9, 121)),
        "errors": ((0, 63), (0, 121)),
        "deadline": ((0, 63), (1, 121)),
        "wrong": ((4, 9), (0, 6)),
    }
    failed = (
        "phone_glass 1.2.0 is taken back: deferred in 26 of 63 (41.3 %) decisions of the candidate, 9 of 121 (7.4 %) "
        "of the control; surely more than 1.2 points worse (at least 5.6 points)"
    )
    add_rollout(plant, "phone_glass", "1.2.0", "rolled_back", 1, now_ms - 1_000_000, failing, failed)
    waiting: Evidence = {
        "deferral": ((7, 148), (8, 131)),
        "errors": ((0, 148), (0, 131)),
        "deadline": ((0, 148), (0, 131)),
        "wrong": ((0, 6), (1, 5)),
    }
    running = "all is in place: on to stage 2 of 4, canary on 10 %"
    add_rollout(plant, "spoken_digits", "1.1.0", "running", 1, now_ms - 190_000, waiting, running)


def add_rollout(
    plant: Plant, model: str, version: str, status: str, stage: int, at_ms: int, counts: Evidence, why: str
) -> str:
    """Put one rollout into the plant's tables, judged by the real gates; return its identity."""
    candidate = ref(model, version)
    plan = Plan.of(PlanShape(), model=model, version=version, digest=candidate.digest)
    answers = answers_of(plan, stage, counts)
    open_words = [answer.words for answer in answers.values() if answer.verdict == "need_more"]
    fields = {
        "rollout": f"{model}-{version}-5f3a1c",
        "candidate": candidate,
        "seed": 1,
        "started_at_ms": at_ms,
        "status": status,
        "stage": stage,
        "stage_since_ms": at_ms + 20_000,
        "stage_elapsed_ms": 140_000,
        "last_tick_ms": at_ms + 160_000,
        "members": _members(model, status),
        "answers": answers,
        "why": why,
        "waiting_for": open_words if status in ("running", "paused") else [],
    }
    state = RolloutState.model_validate(fields)
    plant.rollout(plan, state, _log(at_ms, status, why, answers))
    return state.rollout


def answers_of(plan: Plan, stage: int, counts: Evidence) -> dict[str, gates.GateAnswer]:
    """Return the answers of a stage's gates to counts by metric."""
    found = {}
    for gate in plan.stages[stage].gates:
        if gate.metric in counts:
            (bad, n), (control_bad, control_n) = counts[gate.metric]
            found[gate.key] = gates.judge(
                gate,
                gates.Counts(bad=bad, n=n),
                gates.Counts(bad=control_bad, n=control_n),
                fail_error=plan.fail_error(gate),
                pass_error=plan.error,
                elapsed_s=140.0,
            )
    return found


def _members(model: str, status: str) -> dict[str, Member]:
    old = ref(model, "1.0.0")
    if model == "spoken_digits":
        return {"phone-1": Member(role="candidate", stratum="hall-1, phone", previous=old, staged=True)}
    box = Member(role="candidate", stratum="hall-1, x86-box", previous=old, staged=True)
    if status == "done":
        return {"box-1": box, "box-2": box}
    control = box.model_copy(update={"role": "control"})
    refused = Member(role="refused", stratum="hall-2, arm-box", previous=old, why=CUT_SHORT)
    return {"box-1": box, "box-2": control, "box-3": refused}


def _log(at_ms: int, status: str, why: str, answers: dict[str, gates.GateAnswer]) -> list[tuple[int, str, str]]:
    log = [
        (at_ms, "started", "started by operator: better under side light"),
        (at_ms + 1_000, "stage_entered", "stage 1 of 4, shadow on all devices"),
        (at_ms + 21_000, "devices_assigned", "box-1 decides with the new version, box-2 is its control"),
        (at_ms + 22_000, "stage_entered", "all is in place: on to stage 2 of 4, canary on 10 %"),
    ]
    steps = {"pass": "gate_passed", "fail": "gate_failed"}
    log += [(at_ms + 90_000, steps[a.verdict], a.words) for a in answers.values() if a.verdict in steps]
    if status in ("rolled_back", "done"):
        log.append((at_ms + 96_000, "rolled_back" if status == "rolled_back" else "finished", why))
    return log
