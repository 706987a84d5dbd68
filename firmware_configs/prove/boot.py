"""From a blank disk to a device that has decided, enrolled and got a bundle; every step observed, with its time.

Rules:
- The disk is written by the command that writes cards, and read by nothing but the guest.
- The cable is pulled until the device has decided: what it decides from is on its card.
- Times of the guest are those of its own monotonic clock; times of this machine are told apart from them.
- A decision of a record's that no network made is none here: the bundle must have opened, and judged every picture.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from firmware_configs.commands.write import Order, wanted, write_card
from firmware_configs.errors import BuildError
from firmware_configs.image.wheels import sha256
from firmware_configs.profile import find_profile
from firmware_configs.prove.plant import ControlPlane
from firmware_configs.prove.qemu import Guest, accelerator

FIRST_DECISION = re.compile(r"lineside: first decision ([0-9.]+) s after the start: (\w+)")
STATE = re.compile(r"lineside: (\d+) MB of memory in use; listening to others on: (.*)")
WIPED = "the claim is wiped"
CLOCK_SET = re.compile(r"lineside: the clock was (\d+) s (ahead|behind)")
IN_SERVICE = ("trial", "good")
CLOCK_RIGHT_S = 5.0
STEP_S = 900.0
"""Longest wait for a step, on processors of its own."""
TARGET_S = 45.0


@dataclass
class Story:
    """What was observed."""

    device: str
    accelerator: str
    load_before: float
    write_s: float = 0.0
    first_decision_uptime_s: float = 0.0
    first_decision_wall_s: float = 0.0
    first_decision_processor_s: float = 0.0
    """Processor time of this machine that the guest had taken by then, its firmware's included."""
    plugged_uptime_s: float = 0.0
    """Of the guest, when the cable was plugged in; its clock runs as this machine's does."""
    enrolled_after_cable_s: float = 0.0
    decisions_before_network: int = 0
    decisions_at_console: int = 0
    clock_off_s: float = 0.0
    """How far the first decision's wall clock was ahead of this machine's."""
    clock_set_s: float | None = None
    """How far it was set back, in the device's own words; None if it was not."""
    bundle_from_plane: str | None = None
    rollout: str = ""
    claim_wiped: bool = False
    system_memory_mb: int = 0
    listening: list[str] = field(default_factory=list)
    load_after: float = 0.0
    verdicts: dict[str, int] = field(default_factory=dict)


def boot(
    order: Order, folder: Path, publish: Path | None, tell: Callable[[str], None], clock: str | None = None
) -> Story:
    """Write a card, switch a virtual device on, and return what was observed.

    Args:
        order: the card, but for the control plane's address, the claim and the root.
        folder: for disk, console and control plane.
        publish: a bundle that the device must get from the control plane.
        tell: is told what happens.
        clock: what the device's clock shows at first; None for the right time.

    Raises:
        BuildError: a step did not happen; the end of the console is in the message.
    """
    architecture = find_profile(order.profile).board.architecture
    accel = accelerator(architecture)
    story = Story(order.device, accel, os.getloadavg()[0])
    pictures = len(wanted(order).inputs)
    with ControlPlane(folder / "plane") as plane:
        plane.publish(order.bundles[0], default=True)
        tell(f"control plane at {plane.url}; the guest runs with {accel}")
        began_s = time.monotonic()
        card = {"cloud": plane.from_guest, "claim": plane.claim(order.device), "root": plane.root, "replace": True}
        write_card(Order(**{**vars(order), **card}))
        story.write_s = round(time.monotonic() - began_s, 1)
        tell(f"disk written and read back in {story.write_s} s; switched on, its cable pulled")
        with Guest(order.to, folder, architecture, accel, clock) as guest:
            _decides_alone(guest, plane, story, tell)
            _enrols(guest, plane, story, tell)
            _shows(guest, plane, story, pictures, tell)
            if clock is not None:
                _sets_its_clock(guest, story, tell)
            if publish is not None:
                gets(guest, plane, story, publish, tell)
            story.claim_wiped = bool(guest.wait(lambda: WIPED in guest.text(), STEP_S, "the claim is wiped"))
    story.load_after = os.getloadavg()[0]
    return story


def as_document(story: Story) -> dict[str, Any]:
    """Return the story for machines."""
    return asdict(story)


def _decides_alone(guest: Guest, plane: ControlPlane, story: Story, tell: Callable[[str], None]) -> None:
    found = guest.wait(lambda: FIRST_DECISION.search(guest.text()), STEP_S, "a first decision without a network")
    story.first_decision_uptime_s, story.first_decision_wall_s = float(found[1]), round(guest.since_s, 1)
    story.first_decision_processor_s = round(guest.processor_s, 1)
    state = guest.wait(lambda: STATE.search(guest.text()), STEP_S, "memory and ports on the console")
    story.system_memory_mb = int(state[1])
    story.listening = [] if state[2].strip() == "none" else state[2].strip().split(", ")
    if plane.device(story.device) is not None:
        raise BuildError("the device has enrolled although its cable is pulled")
    tell(
        f"decided without a network: {found[2]}, {found[1]} s after its kernel began, "
        f"{story.first_decision_wall_s} s after the switch, {story.first_decision_processor_s} s of processor time "
        f"(load {os.getloadavg()[0]:.1f}, target {TARGET_S:.0f} s); "
        f"{state[1]} MB of memory in use"
    )


def _enrols(guest: Guest, plane: ControlPlane, story: Story, tell: Callable[[str], None]) -> None:
    plugged_s = guest.since_s
    story.plugged_uptime_s = round(story.first_decision_uptime_s + plugged_s - story.first_decision_wall_s, 1)
    guest.cable(plugged=True)
    guest.wait(lambda: plane.device(story.device), STEP_S, "an enrolment after the cable was plugged in")
    story.enrolled_after_cable_s = round(guest.since_s - plugged_s, 1)
    tell(f"enrolled {story.enrolled_after_cable_s} s after the cable was plugged in")


def _shows(guest: Guest, plane: ControlPlane, story: Story, pictures: int, tell: Callable[[str], None]) -> None:
    def all_of_them() -> list[dict[str, Any]]:
        found = plane.decisions(story.device)
        return found if len(found) >= pictures else []

    decisions = guest.wait(all_of_them, STEP_S, f"{pictures} decisions at the control plane")
    guest.wait(lambda: story.device in plane.page(f"/devices/{story.device}"), STEP_S, "the console showing the device")
    story.decisions_at_console = len(decisions)
    story.decisions_before_network = sum(d["monotonic_ms"] / 1000 <= story.plugged_uptime_s for d in decisions)
    story.clock_off_s = round(_ahead_s(guest, story, min(decisions, key=lambda d: d["seq"])), 1)
    for decision in decisions:
        story.verdicts[decision["verdict"]] = story.verdicts.get(decision["verdict"], 0) + 1
    if not any(decision["scores"] for decision in decisions):
        raise BuildError(f"no picture was judged by the bundle: {[d['reason'] for d in decisions]}")
    tell(f"the console shows {story.device} with {len(decisions)} decisions: {story.verdicts}")


def _ahead_s(guest: Guest, story: Story, decision: dict[str, Any]) -> float:
    """Return how far the device's wall clock was ahead of this machine's when it decided."""
    began_s = time.time() - guest.since_s + story.first_decision_wall_s - story.first_decision_uptime_s
    return float(decision["at_ms"] / 1000 - (began_s + decision["monotonic_ms"] / 1000))


def _sets_its_clock(guest: Guest, story: Story, tell: Callable[[str], None]) -> None:
    found = guest.wait(lambda: CLOCK_SET.search(guest.text()), STEP_S, "a clock that is set")
    story.clock_set_s = float(found[1]) * (1 if found[2] == "ahead" else -1)
    if abs(story.clock_set_s - story.clock_off_s) > CLOCK_RIGHT_S + story.first_decision_wall_s / 10:
        raise BuildError(f"its clock was {story.clock_off_s} s ahead and was set by {story.clock_set_s} s")
    tell(f"its clock was {found[1]} s {found[2]}, and was set by the control plane's")


def gets(guest: Guest, plane: ControlPlane, story: Story, publish: Path, tell: Callable[[str], None]) -> None:
    digest = sha256(publish)
    known = plane.publish(publish, default=False)
    story.rollout = plane.roll_out(known["name"], known["version"])

    def got() -> str | None:
        reported = (plane.device(story.device) or {}).get("reported") or {}
        slots = [slot for held in reported.get("slots", {}).values() for slot in held]
        found = [slot for slot in slots if slot["bundle"]["digest"] == digest and slot["state"] in IN_SERVICE]
        return f"{found[0]['bundle']['version']} {found[0]['state']}" if found else None

    story.bundle_from_plane = guest.wait(got, STEP_S, "the bundle of the rollout in service on the device")
    tell(f"got a bundle by rollout {story.rollout}: {story.bundle_from_plane}")
