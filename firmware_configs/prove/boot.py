"""From a blank disk to a device that has decided, enrolled and got a bundle; every step observed, with its time.

Rules:
- The disk is written by the command that writes cards, and read by nothing but the guest.
- The cable is pulled until the device has decided: what it decides from is on its card.
- Times of the guest are those of its own monotonic clock; times of this machine are told apart from them.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from firmware_configs.commands.write import Order, write_card
from firmware_configs.errors import BuildError
from firmware_configs.image.wheels import sha256
from firmware_configs.profile import find_profile
from firmware_configs.prove.plant import ControlPlane
from firmware_configs.prove.qemu import Guest, accelerator

FIRST_DECISION = re.compile(r"lineside: first decision ([0-9.]+) s after the start: (\w+)")
STATE = re.compile(r"lineside: (\d+) MB of memory in use; listening to others on: (.*)")
WIPED = "the claim is wiped"
ON_THE_DEVICE = ("staged", "trial", "good")
STEP_S = 900.0
"""Longest wait for a step: emulation on a busy machine."""
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
    plugged_uptime_s: float = 0.0
    """Of the guest, when the cable was plugged in; its clock runs as this machine's does."""
    enrolled_after_cable_s: float = 0.0
    decisions_before_network: int = 0
    decisions_at_console: int = 0
    bundle_from_plane: str | None = None
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
    with ControlPlane(folder / "plane") as plane:
        if publish is not None:
            plane.publish(publish)
        tell(f"control plane at {plane.url}; the guest runs with {accel}")
        began_s = time.monotonic()
        card = {"cloud": plane.from_guest, "claim": plane.claim(order.device), "root": plane.root, "replace": True}
        write_card(Order(**{**vars(order), **card}))
        story.write_s = round(time.monotonic() - began_s, 1)
        tell(f"disk written and read back in {story.write_s} s; switched on, its cable pulled")
        with Guest(order.to, folder, architecture, accel, clock) as guest:
            _decides_alone(guest, plane, story, tell)
            _enrols(guest, plane, story, tell)
            _shows(guest, plane, story, tell)
            if publish is not None:
                _gets(guest, plane, story, publish, tell)
            story.claim_wiped = bool(guest.wait(lambda: WIPED in guest.text(), STEP_S, "the claim is wiped"))
    story.load_after = os.getloadavg()[0]
    return story


def as_document(story: Story) -> dict[str, Any]:
    """Return the story for machines."""
    return asdict(story)


def _decides_alone(guest: Guest, plane: ControlPlane, story: Story, tell: Callable[[str], None]) -> None:
    found = guest.wait(lambda: FIRST_DECISION.search(guest.text()), STEP_S, "a first decision without a network")
    story.first_decision_uptime_s, story.first_decision_wall_s = float(found[1]), round(guest.since_s, 1)
    state = guest.wait(lambda: STATE.search(guest.text()), STEP_S, "memory and ports on the console")
    story.system_memory_mb = int(state[1])
    story.listening = [] if state[2].strip() == "none" else state[2].strip().split(", ")
    if plane.device(story.device) is not None:
        raise BuildError("the device has enrolled although its cable is pulled")
    tell(
        f"decided without a network: {found[2]}, {found[1]} s after its kernel began, "
        f"{story.first_decision_wall_s} s after the switch (load {os.getloadavg()[0]:.1f}, target {TARGET_S:.0f} s); "
        f"{state[1]} MB of memory in use"
    )


def _enrols(guest: Guest, plane: ControlPlane, story: Story, tell: Callable[[str], None]) -> None:
    plugged_s = guest.since_s
    story.plugged_uptime_s = round(story.first_decision_uptime_s + plugged_s - story.first_decision_wall_s, 1)
    guest.cable(plugged=True)
    guest.wait(lambda: plane.device(story.device), STEP_S, "an enrolment after the cable was plugged in")
    story.enrolled_after_cable_s = round(guest.since_s - plugged_s, 1)
    tell(f"enrolled {story.enrolled_after_cable_s} s after the cable was plugged in")


def _shows(guest: Guest, plane: ControlPlane, story: Story, tell: Callable[[str], None]) -> None:
    decisions = guest.wait(lambda: plane.decisions(story.device), STEP_S, "decisions at the control plane")
    guest.wait(lambda: story.device in plane.page(f"/devices/{story.device}"), STEP_S, "the console showing the device")
    story.decisions_at_console = len(decisions)
    story.decisions_before_network = sum(d["monotonic_ms"] / 1000 <= story.plugged_uptime_s for d in decisions)
    for decision in decisions:
        story.verdicts[decision["verdict"]] = story.verdicts.get(decision["verdict"], 0) + 1
    tell(f"the console shows {story.device} with {len(decisions)} decisions: {story.verdicts}")


def _gets(guest: Guest, plane: ControlPlane, story: Story, publish: Path, tell: Callable[[str], None]) -> None:
    digest = sha256(publish)

    def got() -> str | None:
        reported = (plane.device(story.device) or {}).get("reported") or {}
        slots = [slot for held in reported.get("slots", {}).values() for slot in held]
        found = [slot for slot in slots if slot["bundle"]["digest"] == digest and slot["state"] in ON_THE_DEVICE]
        return f"{found[0]['bundle']['version']} {found[0]['state']}" if found else None

    story.bundle_from_plane = guest.wait(got, STEP_S, "the bundle of the control plane on the device")
    tell(f"got a bundle from the control plane: {story.bundle_from_plane}")
