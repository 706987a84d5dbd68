"""Brings the device to what the cloud wants: settings at once, bundles by download, proof, trial.

Rules:
- Before a bundle is activated: digest, signature (TUF), version not below the floor, hardware profile, free memory,
  golden examples. What fails is refused with its reason, on record and in the report; the device goes on as it was.
- A bundle that failed here is refused without a download. One that was good here is switched to without a download.
- A `desired` that is older than one applied is ignored; one that needs the network is tried again with back-off.
- Blocking work runs in worker threads; the pipeline never waits for an update.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import TypeAdapter

from edge import slots
from edge.bundle import Bundle, load
from edge.bydelta import Way
from edge.clock import Clock
from edge.engines import Engine
from edge.errors import LinesideError, LinkError, ModelError, StoreError, UpdateError
from edge.overrides import OverrideStore, StationOverrides
from edge.serving import Serving
from edge.slotfile import SlotFile
from edge.wire.base import BundleRef, version_key
from edge.wire.messages import Desired, DesiredBundles, Refusal

MAX_REFUSALS = 16
"""Refusals that are remembered and reported; older ones are in the log."""
RETRY_MIN_S, RETRY_MAX_S = 1.0, 120.0
"""Pause before an update that could not reach its source is tried again, doubled each time, with jitter."""
_APPLIED, _REFUSALS = "config_version", "refusals"
_REFUSALS_ADAPTER: TypeAdapter[list[Refusal]] = TypeAdapter(list[Refusal])

Severity = Literal["info", "warning", "alarm"]

Fetch = Callable[[BundleRef, Path, Path | None], Awaitable[Way]]
"""Gets a bundle, checked against signed metadata, to a path, with the help of another one that is here if one is given;
raises UpdateError or LinkError."""


class Host(Protocol):
    """What the device is and has."""

    @property
    def profile(self) -> str: ...

    def free_memory_bytes(self) -> int: ...


@dataclass(frozen=True)
class Unit:
    """One model on this device: its book, and the stations that run it."""

    model: str
    slot_file: SlotFile
    stations: list[tuple[Serving, Callable[[Bundle], Engine]]] = field(default_factory=list)


class SystemsWanted(Protocol):
    """Takes what is wanted of the operating system (`edge.osupdate`)."""

    def want(self, active: BundleRef | None, candidate: BundleRef | None) -> None: ...


class Updater:
    """Applies `desired` documents. Belongs to one asyncio task."""

    def __init__(
        self,
        units: dict[str, Unit],
        overrides: StationOverrides,
        store: OverrideStore,
        fetch: Fetch | None,
        host: Host,
        clock: Clock,
        boot_id: str,
        systems: SystemsWanted | None = None,
    ) -> None:
        self._systems = systems
        self._units = units
        self._overrides = overrides
        self._store = store
        self._fetch = fetch
        self._host = host
        self._clock = clock
        self._boot_id = boot_id
        self._told: dict[str, str] = {}
        self.changed = asyncio.Event()
        """Set whenever the report would be different."""
        self.applied = int(store.get_meta(_APPLIED) or 0)
        self.refusals = _REFUSALS_ADAPTER.validate_json(store.get_meta(_REFUSALS) or "[]")

    def tell_once(self, name: str, severity: Severity, detail: str) -> None:
        """Record an event unless the same one was the last of its name."""
        if self._told.get(name) != detail:
            self._told[name] = detail
            self._tell(name, severity, detail, {})

    async def run(self, inbox: "asyncio.Queue[Desired]") -> None:
        """Apply what comes, the newest first; try again what the network kept from being applied."""
        waiting: Desired | None = None
        pause_s = RETRY_MIN_S
        while True:
            try:
                timeout_s = pause_s * random.uniform(0.5, 1.0) if waiting else None  # noqa: S311 - jitter
                desired = await asyncio.wait_for(inbox.get(), timeout_s)
                pause_s = RETRY_MIN_S
            except TimeoutError:
                assert waiting is not None
                desired, pause_s = waiting, min(pause_s * 2, RETRY_MAX_S)
            waiting = None if await self.apply(desired) else desired

    async def apply(self, desired: Desired) -> bool:
        """Bring the device to this document; False if the network kept a part from being done.

        An older document than the one applied is ignored, which counts as done.
        """
        if desired.config_version < self.applied:
            return True
        try:
            self._overrides.apply(dict(desired.stations))
            for model, wanted in desired.bundles.items():
                unit = self._units.get(model)
                if unit is not None and wanted.active is not None:
                    await self._serve(unit, wanted.active)
                if unit is not None and wanted.candidate is not None:
                    await self._stage(unit, wanted.candidate)
                if unit is None:
                    self._want_system(wanted)
            self._store.set_meta(_APPLIED, str(desired.config_version))
        except (LinkError, StoreError) as error:
            self.tell_once("update_waiting", "warning", str(error))
            return False
        finally:
            self.changed.set()
        self.applied = desired.config_version
        return True

    def refuse(self, ref: BundleRef, reason: str) -> None:
        """Note that something is not taken, and why."""
        self._refuse(ref, reason)
        self.changed.set()

    def _want_system(self, wanted: DesiredBundles) -> None:
        asked = [ref for ref in (wanted.active, wanted.candidate) if ref is not None and ref.kind == "os"]
        if self._systems is not None and asked:
            self._systems.want(wanted.active, wanted.candidate)
            return
        for ref in asked:
            self._refuse(
                ref,
                "this device has no slots for two operating systems: it takes no updates of the system ([os] slots)",
            )

    async def _serve(self, unit: Unit, ref: BundleRef) -> None:
        before = unit.slot_file.book
        if _serves(before, ref):
            return
        after = unit.slot_file.change(lambda b, now: slots.asked_back(b, ref, now))
        trial = before.trial
        if trial is not None and after.state(trial.ref.digest) == "staged":
            self._tell("bundle_withdrawn", "info", f"{trial.ref.name} {trial.ref.version}: asked back", {})
        if _serves(after, ref):
            return
        bundle = await self._stage(unit, ref)
        if bundle is not None:
            await self._activate(unit, bundle)

    async def _stage(self, unit: Unit, ref: BundleRef) -> Bundle | None:
        """Have the checked bundle on disk; None if it is refused."""
        try:
            self._acceptable(unit, ref)
            bundle = await self._on_disk(unit, ref)
            self._fits(bundle, ref)
        except UpdateError as error:
            self._refuse(ref, str(error))
            return None
        if unit.slot_file.book.state(ref.digest) == "empty":
            unit.slot_file.change(lambda b, now: slots.downloaded(b, ref, now))
            self._tell("bundle_staged", "info", f"{ref.name} {ref.version} is on disk", {"bundle": ref.model_dump()})
        return bundle

    async def _activate(self, unit: Unit, bundle: Bundle) -> None:
        ref = bundle.ref
        engines: list[Engine] = []
        try:
            for _, open_bundle in unit.stations:
                engines.append(await asyncio.to_thread(open_bundle, bundle))
            unit.slot_file.change(lambda b, now: slots.activated(b, ref, now))
        except LinesideError as error:
            for engine in engines:
                engine.session.close()
            if isinstance(error, StoreError):
                raise
            reason = str(error)
            if unit.slot_file.book.state(ref.digest) == "staged":
                unit.slot_file.change(lambda b, now: slots.refused(b, ref, reason, now))
            self._refuse(ref, reason)
            return
        for (serving, _), engine in zip(unit.stations, engines, strict=True):
            serving.offer(engine)
        books = [other.slot_file.book for other in self._units.values()]
        unit.slot_file.delete_unneeded(books)

    def _acceptable(self, unit: Unit, ref: BundleRef) -> None:
        book = unit.slot_file.book
        if ref.name != unit.model:
            raise UpdateError(f"expected a bundle of {unit.model}, got {ref.name}")
        slot = book.slot(ref.digest)
        if slot is not None and slot.state == "bad":
            raise UpdateError(f"it failed on this device before: {slot.reason}")
        if slot is None and book.floor is not None and version_key(ref.version) < version_key(book.floor):
            raise UpdateError(f"version {ref.version} is below {book.floor}, which the device was set up with")

    async def _on_disk(self, unit: Unit, ref: BundleRef) -> Bundle:
        path = unit.slot_file.bundle_path(ref)
        if path.exists():
            try:
                return await asyncio.to_thread(load, path, expected_digest=ref.digest)
            except (UpdateError, ModelError) as error:
                self._tell("bundle_damaged", "warning", f"{path.name}: {error}; fetching it again", {})
                path.unlink(missing_ok=True)
        if self._fetch is None:
            raise UpdateError("this device has no trust root: it takes no new bundles", hint="set cloud.root")
        way = await self._fetch(ref, path, _nearest(unit))
        if way.problem:
            self._tell("delta_refused", "warning", f"{ref.name} {ref.version}: {way.problem}; the whole came", {})
        return await asyncio.to_thread(load, path, expected_digest=ref.digest)

    def _fits(self, bundle: Bundle, ref: BundleRef) -> None:
        manifest = bundle.manifest
        if (manifest.name, manifest.version) != (ref.name, ref.version):
            raise UpdateError(
                f"expected {ref.name} {ref.version}, its manifest says {manifest.name} {manifest.version}"
            )
        profiles = manifest.requires.profiles
        if profiles and self._host.profile not in profiles:
            raise UpdateError(f"made for {', '.join(profiles)}, this device is {self._host.profile}")
        free = self._host.free_memory_bytes()
        if free < manifest.requires.memory_bytes:
            raise UpdateError(f"needs {manifest.requires.memory_bytes} bytes of memory, {free} are free")

    def _refuse(self, ref: BundleRef, reason: str) -> None:
        known = any(r.bundle.digest == ref.digest and r.reason == reason for r in self.refusals)
        if known:
            return
        refusal = Refusal(bundle=ref, at_ms=self._clock.now_ms(), reason=reason)
        self.refusals = [*self.refusals, refusal][-MAX_REFUSALS:]
        self._store.set_meta(_REFUSALS, _REFUSALS_ADAPTER.dump_json(self.refusals).decode())
        detail = f"{ref.name} {ref.version}: {reason}"
        self._tell("bundle_refused", "alarm", detail, {"bundle": ref.model_dump()})

    def _tell(self, name: str, severity: Severity, detail: str, data: dict[str, Any]) -> None:
        self._store.append_event(name, boot_id=self._boot_id, severity=severity, detail=detail, data=data)


def _serves(book: slots.Book, ref: BundleRef) -> bool:
    return book.serving is not None and book.serving.ref.digest == ref.digest


def _nearest(unit: Unit) -> Path | None:
    """Return the file of the bundle that a new one is most likely like: the one that decides."""
    serving = unit.slot_file.book.serving
    path = None if serving is None else unit.slot_file.bundle_path(serving.ref)
    return path if path is not None and path.exists() else None
