"""A device of which only the updates of its system are there, on a simulated machine that is switched off and on.

Everything is real but the machine: the book, the slots, the download from a server, the record.
"""

import asyncio
from pathlib import Path
from typing import Any, BinaryIO

from edge import slots
from edge.errors import UpdateError
from edge.fetch import FetchLimits
from edge.osfetch import download_system
from edge.osrules import Quiet
from edge.osslots import simulated
from edge.osupdate import SETTLE_S, Line, Rules, Systems
from edge.slotfile import SlotFile
from edge.store import Store
from edge.trust import TargetInfo
from edge.wire.base import BundleRef
from tests.clocks import HeldClock
from tests.systems import PROFILE, System

FLASHED = BundleRef(name="os-x86-box", version="1.0.0", digest="0a" * 32, size_bytes=1000, kind="os")
RULES = Rules(tries=3, probation_s=60, deadline_s=300, quiet=Quiet(idle_s=30, window=None, wait_max_s=3600))
SLOT_BYTES = 2**20
LIMITS = FetchLimits(deadline_s=20, pause_s=0, attempts=2)
SHORT = FetchLimits(deadline_s=0, pause_s=0, attempts=1)
"""One connection, and what came is kept."""


class Box:
    """A device of which only its systems are there; it can be switched off and on."""

    def __init__(self, folder: Path, url: str, record: Path | None = None) -> None:
        self.folder, self.url = folder, url
        self.clock = HeldClock()
        self.trouble: dict[str, str] = {}
        self.decisions = 0
        self.told: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []
        self.signed: dict[str, TargetInfo] = {}
        self.restarts = 0
        self.limits = LIMITS
        self.store = Store.open(record or folder / "record.sqlite", clock=self.clock, durability="process")
        simulated.install(folder / "os/machine", FLASHED, slot_bytes=SLOT_BYTES)
        self.start()

    def start(self) -> None:
        """Start the daemon's part of the system that the machine has started."""
        folder = self.folder / "os"
        self.slots = simulated.open_slots(folder, PROFILE, end=self._restart)
        book = SlotFile(self.folder, "os-x86-box", self.clock)
        line = Line(lambda: self.decisions, lambda: self.trouble)
        self.systems = Systems(
            "os-x86-box", PROFILE, self.slots, book, RULES, line, self.store, self.clock, self._tell, self._fetch
        )
        self.systems.refuse = lambda ref, reason: self.refused.append((ref.version, reason))
        self.systems.settle()

    def power_on(self) -> None:
        """Start the machine, then the daemon of what it has started."""
        simulated.start(self.folder / "os/machine")
        self.start()

    def want(self, active: BundleRef | None, candidate: BundleRef | None = None) -> None:
        self.systems.want(active, candidate)
        asyncio.run(self.systems.bring())

    def sign(self, *offered: System) -> None:
        for one in offered:
            self.signed[one.ref.target_path] = TargetInfo(one.ref.digest, one.ref.size_bytes)

    def passes(self, seconds: float, step_s: float = 1) -> None:
        """Let time pass, with a look at every step."""
        for _ in range(-int(-seconds // step_s)):
            self.clock.forward(step_s)
            self.systems.look()

    def update(self, one: System) -> None:
        """Have a system tried: it runs, on trial."""
        self.sign(one)
        self.want(one.ref)
        self.passes(RULES.quiet.idle_s + SETTLE_S)
        assert self.restarts
        self.power_on()
        assert self.running == one.ref.version

    @property
    def running(self) -> str:
        return self.slots.running.ref.version

    @property
    def book(self) -> slots.Book:
        return self.systems.slot_file.book

    def names(self) -> list[str]:
        return [name for name, _ in self.told]

    async def _fetch(self, ref: BundleRef, device: BinaryIO) -> None:
        progress = self.folder / "os/download.json"
        trust = self._trust
        targets = f"{self.url}/tuf/targets"
        download_system(ref, device, progress, targets_url=targets, trust=trust, limits=self.limits)

    def _trust(self, name: str) -> TargetInfo:
        if name not in self.signed:
            raise UpdateError(f"{name} is not among the signed bundles")
        return self.signed[name]

    def _tell(self, name: str, _severity: Any, detail: str, _data: dict[str, Any]) -> None:
        self.told.append((name, detail))

    def _restart(self) -> None:
        self.restarts += 1
