"""Says which devices of a rollout are asked next: into which arm, or to fetch the bundle; pure.

Rules:
- Nobody is drawn beyond the stage's share, by strata and seed (`cloud.strata`), and the last control stays one as long
  as there is anything to compare it with.
- No more devices fetch the bundle at one time than the plan says. Devices that hold it need no room, and those that
  cannot be reached are asked when they can.
"""

from collections.abc import Container, Mapping

from cloud.plans import Plan, Stage
from cloud.rollout_state import DeviceView, RolloutState
from cloud.strata import draw_order, matching_controls

HELD = ("staged", "trial", "good")


def drawing_order(state: RolloutState) -> list[str]:
    """Return the members that may still be drawn, in the order in which they are."""
    members = state.members
    order = draw_order({name: member.stratum for name, member in members.items()}, state.seed)
    return [name for name in order if members[name].role in ("waiting", "control")]


def next_staged(stage: Stage, state: RolloutState, online: Container[str]) -> list[str]:
    """Return who is asked to fetch the bundle next: a shadow's share, or ahead of a window who will be drawn in it."""
    if stage.kind == "shadow":
        left = stage.quota(state.cohort) - sum(member.staged for member in state.members.values())
        return [n for n in drawing_order(state) if not state.members[n].staged][: max(0, left)] if left > 0 else []
    return [name for name in next_candidates(stage, state, online) if not state.members[name].staged]


def next_candidates(stage: Stage, state: RolloutState, online: Container[str]) -> list[str]:
    """Return who decides with the candidate next."""
    free = stage.quota(state.cohort) - state.count("candidate")
    if free <= 0:
        return []
    order = drawing_order(state)
    if stage.full:
        return order[:free]
    waiting = [name for name in order if state.members[name].role == "waiting" and name in online]
    controls = [name for name in order if state.members[name].role == "control" and name in online]
    alone = not waiting and not state.count("candidate")
    spare = controls if alone else controls[1:]
    return (waiting + spare)[:free]


def next_controls(state: RolloutState, online: Container[str], candidates: list[str]) -> list[str]:
    """Return who is compared with the candidates next: as many as there are of them, by strata."""
    drawn = set(candidates)
    arm = [*state.with_role("candidate"), *candidates]
    kept = [name for name in state.with_role("control") if name not in drawn]
    if len(kept) >= len(arm):
        return []
    waiting = [n for n in drawing_order(state) if state.members[n].role == "waiting" and n not in drawn]
    pool = [name for name in waiting if name in online] or ([] if kept else waiting)
    strata = {name: member.stratum for name, member in state.members.items()}
    return matching_controls(pool, strata, arm, kept, len(arm) - len(kept))


def with_room(plan: Plan, state: RolloutState, online: Mapping[str, DeviceView], names: list[str]) -> list[str]:
    """Return those of the names that may be asked now without more downloads at one time than the plan allows."""
    if plan.max_parallel_downloads is None:
        return names
    fetching = sum(
        online[name].slot is None
        for name, member in state.members.items()
        if name in online and (member.role == "candidate" or (member.staged and member.role in ("waiting", "control")))
    )
    room = max(0, plan.max_parallel_downloads - fetching)
    taken = []
    for name in names:
        view = online.get(name)
        if view is None:
            continue
        needs = view.slot not in HELD and not state.members[name].staged
        if not needs or room > 0:
            taken.append(name)
            room -= needs
    return taken
