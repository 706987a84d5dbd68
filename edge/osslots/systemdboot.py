"""The slots of a device whose card was written by `lineside-flash`: two partitions, systemd-boot on the boot partition.

Rules:
- Partitions are found by their labels, `root-a` and `root-b`; which one runs, the kernel's command line says.
- The daemon has no rights of root: it may write the other root and the boot partition, and asks for the rest by files
  below /run/lineside that units of the system wait for.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ConfigError, StoreError
from edge.osslots.interface import SlotName
from edge.osslots.loader import LoaderSlots, Places

LABELS = Path("/dev/disk/by-partlabel")
UUIDS = Path("/dev/disk/by-partuuid")
BOOT = Path("/efi")
COMMAND_LINE = Path("/proc/cmdline")
ASKED = Path("/run/lineside")
WELL, RESTART = "healthy", "restart"
APPEAR_S = 3.0
"""Longest wait for the partitions: a daemon may start before all of them are known."""


@dataclass(frozen=True)
class SystemdBoard:
    """A machine under systemd."""

    labels: Path = LABELS
    uuids: Path = UUIDS
    command_line: Path = COMMAND_LINE
    asked: Path = ASKED

    def options(self) -> str:
        try:
            return self.command_line.read_text()
        except OSError as error:
            raise ConfigError(f"os.slots: {self.command_line}: {error.strerror}") from error

    def root_of(self, slot: SlotName) -> str:
        device = (self.labels / f"root-{slot}").resolve()
        found = next((path.name for path in self.uuids.glob("*") if path.resolve() == device), None)
        if found is None:
            raise StoreError(f"{device} has no identity below {self.uuids}", retry=False)
        return f"PARTUUID={found.lower()}"

    def say_well(self) -> None:
        self._ask(WELL)

    def restart(self) -> None:
        self._ask(RESTART)

    def _ask(self, what: str) -> None:
        try:
            (self.asked / what).touch()
        except OSError as error:
            raise StoreError(
                f"{self.asked / what}: {error.strerror}", hint="RuntimeDirectory=lineside in the daemon's unit"
            ) from error


def open_slots(folder: Path, _profile: str, *, boot: Path = BOOT, board: SystemdBoard | None = None) -> LoaderSlots:
    """Open the slots of this device; `folder` is where the units of the image look for what is tried.

    Raises:
        ConfigError: it has none, or this start does not say which system runs.
    """
    board = board or SystemdBoard()
    devices: dict[SlotName, Path] = {"a": board.labels / "root-a", "b": board.labels / "root-b"}
    missing = _missing(devices.values())
    if missing or not boot.is_dir():
        raise ConfigError(
            f"os.slots: {missing[0] if missing else boot} is missing: this device has no slots for two systems",
            hint='cards that lineside-flash writes have them; elsewhere leave slots = "none"',
        )
    folder.mkdir(parents=True, exist_ok=True)
    return LoaderSlots(Places(boot, devices, folder), board)


def _missing(devices: Collection[Path]) -> list[str]:
    """Return which partitions are not there; those of one disk appear one after the other while a machine starts."""
    until_s = time.monotonic() + APPEAR_S
    while missing := [str(path) for path in devices if not path.exists()]:
        if time.monotonic() > until_s:
            break
        time.sleep(0.05)
    return missing
