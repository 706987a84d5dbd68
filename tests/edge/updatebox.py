"""A device without a pipeline, for tests of updates: book, serving, store and updater are real."""

import asyncio
from pathlib import Path
from typing import Any

from edge import slots
from edge.bundle import Bundle, parse
from edge.bydelta import Way
from edge.engines import Engine, EngineSettings, open_engine
from edge.errors import LinkError, UpdateError
from edge.overrides import StationOverrides
from edge.serving import ProbationRules, Serving
from edge.slotfile import SlotFile
from edge.store import Store
from edge.update import Unit, Updater
from edge.values import StationSettings
from edge.wire.base import BundleRef
from edge.wire.messages import Desired, DesiredBundles
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock

MODEL = "brightness"


class Box:
    """Book, serving, store and updater of one model; fetching is from memory."""

    profile = "x86-box"

    def __init__(self, folder: Path) -> None:
        self.clock = HeldClock()
        self.told: list[str] = []
        self.store = Store.open(folder / "lineside.sqlite", clock=self.clock, durability="process")
        self.slot_file = SlotFile(folder, MODEL, self.clock)
        rules = ProbationRules(windows=2, seconds=0, max_deadline_misses=1, max_memory_bytes=2**40)
        self.serving = Serving(self.slot_file, self.open, rules, self.clock, lambda name, *_: self.told.append(name))
        own = {"main": StationSettings(station="main", mode="partial")}
        self.overrides = StationOverrides(own, self.store, "boot")
        unit = Unit(MODEL, self.slot_file, [(self.serving, self.open)])
        self.served: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.bases: list[Path | None] = []
        self.delta_problem = ""
        self.cut = False
        self.free = 2**40
        self.updater = Updater({MODEL: unit}, self.overrides, self.store, self.fetch, self, self.clock, "boot")

    def open(self, bundle: Bundle, **limits: Any) -> Engine:
        return open_engine(bundle, EngineSettings(isolation="inline"), **limits)

    async def fetch(self, ref: BundleRef, path: Path, base: Path | None) -> Way:
        self.fetched.append(ref.version)
        self.bases.append(base)
        if self.cut:
            raise LinkError("the control plane cannot be reached")
        if ref.digest not in self.served:
            raise UpdateError("its signature is not by a key that this device trusts")
        path.write_bytes(self.served[ref.digest])
        return Way(0, self.delta_problem)

    def free_memory_bytes(self) -> int:
        return self.free

    def publish(self, version: str, **changes: Any) -> BundleRef:
        data = bundle_bytes(version, **changes)
        ref = parse(data).ref
        self.served[ref.digest] = data
        return ref

    def set_up_with(self, version: str) -> BundleRef:
        ref = self.publish(version)
        self.slot_file.bundle_path(ref).write_bytes(self.served[ref.digest])
        self.slot_file.change(lambda book, now: slots.preloaded(book, ref, now))
        assert self.serving.current() is not None
        return ref

    def want(self, config_version: int, active: BundleRef | None = None, **more: Any) -> bool:
        bundles = {MODEL: DesiredBundles(active=active, candidate=more.pop("candidate", None))}
        desired = Desired(device="box-1", config_version=config_version, issued_at_ms=0, bundles=bundles, **more)
        return asyncio.run(self.updater.apply(desired))

    def serve(self, windows: int = 3) -> str:
        """Serve windows well; return the version that judged the last."""
        for _ in range(windows):
            engine = self.serving.current()
            assert engine is not None
            self.serving.window_served(deadline_missed=False)
        assert self.serving.serving is not None
        return self.serving.serving.version

    @property
    def reasons(self) -> list[str]:
        return [refusal.reason for refusal in self.updater.refusals]
