"""Power is cut at every write, sync and rename of an update that is really fetched: afterwards it ends well by itself.

The bundle comes from a real server in several connections, through the device's own updater, onto trial and to the end
of its probation. Whatever a cut leaves of that, the device decides with a good bundle, and the same wish, told again,
brings the new one: a torn part is no reason to refuse a signed bundle.
"""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import files, slots
from edge.bundle import Bundle, load, parse
from edge.bydelta import Way
from edge.engines import Engine, EngineSettings, open_engine
from edge.fetch import FetchLimits, download_bundle
from edge.overrides import StationOverrides
from edge.serving import ProbationRules, Serving
from edge.slotfile import SlotFile
from edge.slots import Book
from edge.store import Store
from edge.trust import TargetInfo
from edge.update import Unit, Updater
from edge.values import StationSettings
from edge.wire.base import BundleRef
from edge.wire.messages import Desired, DesiredBundles
from tests.bundles import bundle_bytes
from tests.clocks import HeldClock
from tests.faults.powercut import Recorder, recorded, restore, states
from tests.webserver import WebServer

MODEL = "brightness"
OLD_BYTES, NEW_BYTES = bundle_bytes("1.0.0"), bundle_bytes("1.1.0", note="so long that it is many sectors " * 600)
OLD, NEW = parse(OLD_BYTES).ref, parse(NEW_BYTES).ref
CONNECTION_BYTES = 1 + len(NEW_BYTES) // 3
"""Each connection is cut after so many, so that the part grows in steps."""
LIMITS = FetchLimits(deadline_s=20, pause_s=0, margin_bytes=0)
RULES = ProbationRules(windows=1, seconds=0, max_deadline_misses=0, max_memory_bytes=2**40)


class Box:
    """A device without a pipeline: book, fetching, updater and serving are real; its record lies on another disk."""

    profile = "x86-box"

    def __init__(self, folder: Path, store: Store, url: str) -> None:
        self._url = url
        clock = HeldClock()
        self.slot_file = SlotFile(folder, MODEL, clock)
        self.serving = Serving(self.slot_file, self.open, RULES, clock, lambda *_: None)
        own = {"main": StationSettings(station="main", mode="partial")}
        unit = Unit(MODEL, self.slot_file, [(self.serving, self.open)])
        overrides = StationOverrides(own, store, "boot")
        self.updater = Updater({MODEL: unit}, overrides, store, self.fetch, self, clock, "boot")

    def open(self, bundle: Bundle, **limits: Any) -> Engine:
        return open_engine(bundle, EngineSettings(isolation="inline"), **limits)

    def free_memory_bytes(self) -> int:
        return 2**40

    async def fetch(self, ref: BundleRef, path: Path, _base: Path | None) -> Way:
        return download_bundle(ref, path, targets_url=self._url, trust=_signed, limits=LIMITS)

    def want(self, ref: BundleRef, version: int) -> bool:
        wish = {MODEL: DesiredBundles(active=ref)}
        return asyncio.run(
            self.updater.apply(Desired(device="box-1", config_version=version, issued_at_ms=0, bundles=wish))
        )

    def serve(self) -> BundleRef:
        """Serve a window; return what judged it."""
        engine = self.serving.current()
        assert engine is not None
        self.serving.window_served(deadline_missed=False)
        return engine.ref

    def set_up(self) -> None:
        files.write_atomic(self.slot_file.bundle_path(OLD), OLD_BYTES)
        self.slot_file.change(lambda book, now: slots.preloaded(book, OLD, now))


def _signed(_name: str) -> TargetInfo:
    return TargetInfo(digest=NEW.digest, size_bytes=NEW.size_bytes)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer() as made:
        made.files[f"/tuf/targets/{NEW.digest}.{NEW.target_path}"] = NEW_BYTES
        made.behaviour.cut_after_bytes = CONNECTION_BYTES
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "record.sqlite", clock=HeldClock(), durability="process") as made:
        yield made


def test_update_whose_power_is_cut_anywhere_ends_with_the_new_bundle_in_service(
    tmp_path: Path, server: WebServer, store: Store, monkeypatch: pytest.MonkeyPatch, rng: random.Random
) -> None:
    folder, url = tmp_path / "data", f"{server.url}/tuf/targets"
    folder.mkdir()
    with recorded(folder, monkeypatch) as recorder:
        box = Box(folder, store, url)
        box.set_up()
        recorder.promised = "set up"
        assert box.serve() == OLD
        assert box.want(NEW, 1)
        assert box.serve() == NEW
        recorder.promised = "in service"
        recorder.took_place()
    server.behaviour.cut_after_bytes = None
    seen: list[dict[str, bytes]] = []
    version = 1
    for disk, promised in recorder.moments:
        for state in states(disk, rng):
            if promised is None or state in seen:
                continue
            seen.append(state)
            restore(folder, state, "bundles")
            version += 1
            _starts_well(Box(folder, store, url), promised, version)
    print(f"{len(seen)} distinct states after a cut, {len(recorder.moments)} moments, {len(server.requests)} requests")
    assert len(recorder.moments) > 30 and len(seen) >= 15
    _steps_were_seen(recorder, seen)


def _starts_well(box: Box, promised: str, version: int) -> None:
    """The device decides with a good bundle before it hears anything, and with the new one after the same wish."""
    assert box.slot_file.problem is None
    book: Book = box.slot_file.book
    assert book.serving is not None and book.current in (OLD.digest, NEW.digest)
    assert book.serving.state in ("good", "trial")
    load(box.slot_file.bundle_path(book.serving.ref), expected_digest=book.serving.ref.digest)
    if promised == "in service":
        assert book.current == NEW.digest
    box.slot_file.change(slots.started)
    assert box.serve() == book.serving.ref
    assert box.want(NEW, version)
    assert box.updater.refusals == []
    assert box.serve() == NEW
    assert box.slot_file.book.current == NEW.digest and box.slot_file.book.previous == OLD.digest
    box.serving.close()


def _steps_were_seen(recorder: Recorder, seen: list[dict[str, bytes]]) -> None:
    """Parts of every length, torn ones of full length among them, or this shows nothing of fetching."""
    lengths = {len(data) for state in seen for path, data in state.items() if path.endswith(".part")}
    assert {0, len(NEW_BYTES)} < lengths
    torn = [
        data
        for state in seen
        for path, data in state.items()
        if path.endswith(".part") and len(data) == len(NEW_BYTES) and data != NEW_BYTES
    ]
    assert torn
    assert any(str(path).endswith(f"{NEW.digest}.lsb") for path in recorder.disk.names)
