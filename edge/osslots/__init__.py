"""Slots for two operating systems: where the other one is put and started from, each behind the same `OsSlots`.

Rules:
- One runs and is never written to; the other one is written, tried, and either confirmed or left again.
- What chooses between them is the board's own boot chain with its count of tries: it needs nothing of what it starts.
- To add one: a file with an `open_slots` like those here, and a line in `SLOTS`; the suite in `tests/seams` judges it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edge.lazy import find

if TYPE_CHECKING:
    from edge.osslots.interface import OsSlots

SLOTS = {
    "simulated": "edge.osslots.simulated:open_slots",
    "systemd-boot": "edge.osslots.systemdboot:open_slots",
}


def open_slots(kind: str, folder: Path, profile: str) -> "OsSlots":
    """Open the slots of this device.

    Args:
        kind: a key of `SLOTS`.
        folder: for what is not on partitions of its own.
        profile: the kind of device.

    Raises:
        ConfigError: the kind is unknown, or this device has no such slots.
    """
    slots: OsSlots = find(SLOTS, kind, what="os.slots")(folder, profile)
    return slots
