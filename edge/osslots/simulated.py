"""Slots in a folder, for simulated devices and tests: two files for roots, and a loader that counts as the real one.

Rules:
- The folder is the machine's disk; `restart` says that it is to be started, which is done by whoever plays the machine:
  `start` chooses an entry and counts it, as systemd-boot does.
- A machine without a system gets one at once, so that a simulated device needs no card.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.errors import StoreError
from edge.files import make_directory, write_atomic
from edge.osslots import entries
from edge.osslots.entries import Entry
from edge.osslots.interface import SlotName, Tries
from edge.osslots.loader import ENTRIES, LoaderSlots, Places, read_entries
from edge.wire.base import BundleRef
from edge.wire.osimage import INITRD, KERNEL, os_name

SLOT_BYTES = 512 * 2**20
"""Size of each root; the files are sparse."""
BOOTED, ASKED, WELL = "command-line", "restart", "healthy"


def install(folder: Path, ref: BundleRef, *, slot_bytes: int = SLOT_BYTES) -> None:
    """Make a machine whose slot a holds a system that is confirmed; nothing happens if there is one."""
    entry = Entry("a", Tries(None), 1, " ".join(["root=slot-a", "quiet", *entries.system_words("a", ref)]))
    if (folder / BOOTED).exists():
        return
    for name in (ENTRIES, "a"):
        make_directory(folder / "boot" / name)
    for slot in ("a", "b"):
        with (folder / f"root-{slot}").open("ab") as file:
            file.truncate(slot_bytes)
    for name in (KERNEL, INITRD):
        write_atomic(folder / "boot" / "a" / name, name.encode())
    write_atomic(folder / "boot" / ENTRIES / entry.name, entry.text.encode())
    write_atomic(folder / BOOTED, entry.options.encode())


def start(folder: Path) -> str:
    """Switch the machine on: choose an entry, count it, and return the command line of what runs now.

    Raises:
        StoreError: there is nothing to start.
    """
    boot = folder / "boot"
    entry = entries.chosen(read_entries(boot))
    if entry is None:
        raise StoreError(f"{boot} holds no entry to start", retry=False)
    after = entries.counted(entry)
    if after.name != entry.name:
        (boot / ENTRIES / entry.name).replace(boot / ENTRIES / after.name)
    for name in (ASKED, WELL):
        (folder / name).unlink(missing_ok=True)
    write_atomic(folder / BOOTED, entry.options.encode())
    return entry.options


@dataclass(frozen=True)
class SimulatedBoard:
    """A folder that stands for a machine."""

    folder: Path
    end: Callable[[], None]
    """Ends what runs, as a restart does."""

    def options(self) -> str:
        return (self.folder / BOOTED).read_text()

    def root_of(self, slot: SlotName) -> str:
        return f"slot-{slot}"

    def say_well(self) -> None:
        (self.folder / WELL).touch()

    def restart(self) -> None:
        (self.folder / ASKED).touch()
        self.end()


def open_slots(folder: Path, profile: str, *, end: Callable[[], None] | None = None) -> LoaderSlots:
    """Open the slots of a simulated machine; a restart ends this process unless `end` says how else."""
    machine = folder / "machine"
    if not (machine / BOOTED).exists():
        install(machine, BundleRef(name=os_name(profile), version="0.0.0", digest="0" * 64, size_bytes=0, kind="os"))
    elif (machine / ASKED).exists():  # whoever started this process again is the machine
        start(machine)
    devices: dict[SlotName, Path] = {"a": machine / "root-a", "b": machine / "root-b"}
    board = SimulatedBoard(machine, end or (lambda: os.kill(os.getpid(), signal.SIGTERM)))
    return LoaderSlots(Places(machine / "boot", devices, folder), board)
