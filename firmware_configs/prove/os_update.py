"""Rolls new systems out to a virtual device: a good one that it keeps, and a broken one that it leaves by itself.

Rules:
- Everything takes the way that it takes in service: packed, signed, published and rolled out by the commands and calls
  of a control plane; written, tried and judged by the device; nothing is put onto its disk from outside.
- What is told of the device is what it has reported itself.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.wire.base import BundleRef, version_key
from firmware_configs.commands.write import Order, image_of, write_card
from firmware_configs.errors import BuildError
from firmware_configs.image.debian import load_image
from firmware_configs.pack import pack
from firmware_configs.profile import find_profile
from firmware_configs.prove.broken import WORDS, break_image
from firmware_configs.prove.plant import ControlPlane
from firmware_configs.prove.qemu import Guest, accelerator

STEP_S = 1800.0
"""Longest wait for a step: four starts under emulation, on processors of its own."""
AT_ONCE = '[[stages]]\nkind = "ramp"\nshare = 1.0\nmin_s = 0\nmax_s = 7200\n'
"""One device is all there is: no canary, and no gate, as for every system."""


@dataclass
class Update:
    """What was observed of one rollout."""

    version: str
    status: str = ""
    why: str = ""
    slot: str = ""
    in_place_s: float = 0.0
    """From the start of the rollout until the system lay in the other slot, proven."""
    runs_s: float | None = None
    """Until the device said that it runs; None if it never did."""
    ended_s: float = 0.0
    """Until the rollout had ended."""
    runs: str = ""
    """The version that the device says to run at the end."""
    state: str = ""
    reason: str | None = None
    starts: int = 0
    """How often the machine was started meanwhile."""


@dataclass
class Story:
    """What was observed."""

    device: str
    accelerator: str
    load_before: float
    flashed: str = ""
    updates: list[Update] = field(default_factory=list)
    decided_before: int = 0
    decided_after: int = 0
    load_after: float = 0.0


def os_update(order: Order, folder: Path, tell: Callable[[str], None]) -> Story:
    """Write a card, switch a virtual device on, and roll two systems out to it.

    Args:
        order: the card, but for the control plane's address, the claim and the root.
        folder: for disk, console, systems and control plane.
        tell: is told what happens.

    Raises:
        BuildError: a step did not happen; the end of the console is in the message.
    """
    profile = find_profile(order.profile)
    image = image_of(profile, order.image)
    architecture = profile.board.architecture
    accel = accelerator(architecture)
    story = Story(order.device, accel, os.getloadavg()[0])
    systems = make_systems(image, folder)
    tell(f"packed {systems[0][1].version} and a broken {systems[1][1].version}")
    with ControlPlane(folder / "plane") as plane:
        card = {"cloud": plane.from_guest, "claim": plane.claim(order.device), "root": plane.root, "replace": True}
        write_card(Order(**{**vars(order), **card, "image": image}))
        with Guest(order.to, folder, architecture, accel) as guest:
            guest.cable(plugged=True)
            watched = Watched(guest, plane, order.device)
            story.flashed = guest.wait(lambda: watched.os().get("serving"), STEP_S, "a first report")["version"]
            guest.wait(lambda: plane.decisions(order.device), STEP_S, "decisions at the control plane")
            story.decided_before = len(plane.decisions(order.device))
            tell(f"{order.device} runs {story.flashed} and has decided {story.decided_before} times")
            for file, ref in systems:
                plane.publish(file, default=False)
                story.updates.append(roll_out(watched, ref, tell))
                file.unlink()
            story.decided_after = len(plane.decisions(order.device))
    story.load_after = os.getloadavg()[0]
    _check(story)
    return story


class Watched:
    """The device, as its control plane and its console show it."""

    def __init__(self, guest: Guest, plane: ControlPlane, device: str) -> None:
        self.guest, self.plane, self.device = guest, plane, device

    def reported(self) -> dict[str, Any]:
        return (self.plane.device(self.device) or {}).get("reported") or {}

    def os(self) -> dict[str, Any]:
        return self.reported().get("os") or {}

    def slot(self, ref: BundleRef) -> dict[str, Any]:
        """Return what the device says of a system; empty if it knows nothing of it."""
        slots = self.reported().get("slots", {}).get(ref.name, [])
        return next((slot for slot in slots if slot["bundle"]["digest"] == ref.digest), {})

    def starts(self) -> int:
        """Return how often the firmware has handed over to the boot loader."""
        return self.guest.starts


def make_systems(image: Path, folder: Path) -> list[tuple[Path, BundleRef]]:
    """Pack the same image under another version, and a broken one under the next."""
    manifest = load_image(image)
    major, minor, _ = version_key(manifest.version)
    broken = break_image(manifest, image, folder / "broken")
    made = []
    for kind, source, version in (
        (manifest, image, f"{major}.{minor + 1}.0"),
        (broken, folder / "broken", f"{major}.{minor + 2}.0"),
    ):
        file = folder / f"os-{version}.lsb"
        made.append((file, pack(kind, source, version, file)))
    return made


def roll_out(watched: Watched, ref: BundleRef, tell: Callable[[str], None]) -> Update:
    plane, guest, before = watched.plane, watched.guest, watched.starts()
    asked = {"model": ref.name, "version": ref.version, "plan": AT_ONCE, "why": "a proof"}
    rollout, began_s = plane.ask("/v1/rollouts", asked)["id"], time.monotonic()
    update = Update(ref.version)
    guest.wait(lambda: watched.slot(ref), STEP_S, f"{ref.version} in the other slot")
    update.in_place_s = round(time.monotonic() - began_s, 1)
    tell(f"{ref.version} lies in the other slot, proven, {update.in_place_s} s after the rollout began")

    def ended() -> dict[str, Any] | None:
        if update.runs_s is None and watched.os().get("serving", {}).get("version") == ref.version:
            update.runs_s = round(time.monotonic() - began_s, 1)
        found = plane.ask(f"/v1/rollouts/{rollout}")
        return found if found["status"] not in ("running", "paused") else None

    found = guest.wait(ended, STEP_S, f"an end of the rollout of {ref.version}")
    update.ended_s, update.status, update.why = round(time.monotonic() - began_s, 1), found["status"], found["why"]
    slot = watched.slot(ref)
    update.state, update.reason = slot.get("state", ""), slot.get("reason")
    update.runs, update.slot = watched.os()["serving"]["version"], watched.os()["slot"]
    update.starts = watched.starts() - before
    tell(f"the rollout of {ref.version} is {update.status} after {update.ended_s} s: {update.why}")
    return update


def _check(story: Story) -> None:
    """Hold what was observed against what is promised."""
    good, broken = story.updates
    wrong = []
    if (good.status, good.runs, good.state, good.slot) != ("done", good.version, "good", "b"):
        wrong.append(f"{good.version} should run, confirmed, in slot b")
    if (broken.status, broken.runs, broken.state) != ("rolled_back", good.version, "bad"):
        wrong.append(f"{broken.version} should have been left for {good.version}, and its rollout taken back")
    if WORDS not in (broken.reason or ""):
        wrong.append(f"the device should say why: {WORDS!r}")
    if wrong:
        raise BuildError(f"{'; '.join(wrong)}; observed: {story.updates}")
