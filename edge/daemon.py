"""Puts a device together from its configuration and runs it: the only place that knows the concrete parts.

Rules:
- Stations decide in threads of their own; link, uplink, uploads, updates and reports are tasks of one group.
- Nothing of the cloud's is needed to start or to decide.
- A task that fails in a way nobody foresaw is told and started again; it never takes the stations with it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge import slots
from edge.bundle import load
from edge.clock import Clock, new_boot_id
from edge.config import CloudSection, Config, LocalSection, load_config
from edge.consent import tell_changes
from edge.engines import START_TIMEOUT_S
from edge.errors import ConfigError, LinesideError, StoreError
from edge.files import make_directory, write_atomic
from edge.groupsync import GroupSync
from edge.health import written_bytes
from edge.host import LinuxHost
from edge.keptrunning import kept_running
from edge.osupdate import Fetch as SystemFetch
from edge.osupdate import Systems
from edge.overrides import StationOverrides
from edge.processor import hold
from edge.reload import compare
from edge.reporter import Reporter
from edge.retention import StoreLimits
from edge.slotfile import SlotFile
from edge.sources.interface import Listening
from edge.station import Shared, Station, store_path
from edge.store import WRITTEN_TODAY, Store
from edge.systemd import Notifier, TurnWatch, feed
from edge.update import Fetch, Severity, Unit, Updater
from edge.values import StationSettings
from edge.wear import WriteBudget
from edge.wire.rows import OutcomeRow

JOIN_S = 10.0
"""Longest wait for a station to finish the window it is on when the daemon stops, after what `drain_s` allows; and once
more for whoever asks a server or writes a shadow's results."""
HURRY_S = 2.0
"""The same when it is told a second time to stop: enough for a window, not for a network that hangs."""
STOP_LOOK_S = 0.02
OPENS_TWICE = 1.5
"""A bundle that fails to load is tried again at once: of the second time half may pass before systemd acts."""
LOOK_EVERY_S = 0.2
"""How often it is looked whether something was switched at the device: a person waits for it."""
PRUNE_EVERY_S = 30.0
"""How often the record is held against its limits: seldom enough to cost nothing, often enough not to fill a disk."""
TOLD_ACTIONS = 20
"""Decisions named in the event; each has an outcome of its own besides."""


class Daemon:
    """A device, running."""

    def __init__(self, config: Config, clock: Clock, environment: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._clock = clock
        self._notifier = Notifier(environment or {})
        self._boot_id = new_boot_id()
        # Before any thread or child is there to be forgotten.
        self._held = hold(config.device.cores)
        self._group = GroupSync()
        make_directory(config.device.data)
        self._budget = WriteBudget(config.store.max_written_bytes_per_day, config.store.drop_first)
        self._counted_bytes = 0
        self._store = self._open_store()
        self._budget.restore(self._store.get_meta(WRITTEN_TODAY))
        own = {name: _settings(name, config) for name in config.station}
        self._overrides = StationOverrides(own, self._store, self._boot_id)
        self._units = self._make_units()
        shared = Shared(config, clock, self._boot_id, self._open_store, self._overrides.settings, self._budget)
        self._stations = [
            Station(name, section, self._units[section.model].slot_file, shared)
            for name, section in config.station.items()
        ]
        for station in self._stations:
            model = config.station[station.name].model
            self._units[model].stations.append((station.serving, station.open_bundle))
        self._systems = self._make_systems()

    def listening(self) -> dict[str, Listening]:
        """Return what the stations hear now, those that hear; also from another thread."""
        heard = {station.name: station.listening for station in self._stations}
        return {name: now for name, now in heard.items() if now is not None}

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event | None = None, *, drain: bool = False) -> None:
        """Run until told to stop; with `drain`, until every source is exhausted and everything is sent.

        Args:
            stop: set when it is to end; what was taken in before is still decided, for `device.drain_s` at most.
            hurry: set when it is to end at once.
            drain: end by itself.
        """
        self._tell_start()
        for station in self._stations:
            station.start()
        self._notifier.say("READY=1")
        self._notifier.allow_silence(self._longest_silence_s())
        updater = self._make_updater()
        reporter = self._make_reporter(updater)
        work = asyncio.create_task(self._work(updater, reporter), name="tasks")
        fed = asyncio.create_task(self._kept_running("watchdog", lambda: feed(self._notifier, self._turns)))
        try:
            await self._until_done(stop, drain=drain)
        finally:
            self._notifier.say("STOPPING=1")
            for station in self._stations:
                station.stop()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            ended = await self._stations_ended(hurry)
            fed.cancel()
            reporter.write()
            self._tell("daemon_stopped", "info", "" if ended else "a station did not end in time")
            self._store.close()

    def reload(self, path: Path) -> None:
        """Read the configuration again and take what needs no restart; a file with mistakes changes nothing."""
        try:
            found = compare(self._config, load_config(path))
        except ConfigError as error:
            self._tell("config_refused", "alarm", f"the configuration in force stays: {error}")
            return
        self._config = found.config
        with contextlib.suppress(StoreError):  # a full disk: it holds all the same, and the next report says so
            self._overrides.reload({name: _settings(name, self._config) for name in self._config.station})
            self._tell_consent()
        words = ", ".join(found.changed) or "nothing"
        waits = f"; needs a restart: {', '.join(found.restart)}" if found.restart else ""
        self._tell("config_reloaded", "warning" if found.restart else "info", f"changed: {words}{waits}")

    def _make_updater(self) -> Updater:
        return Updater(
            self._units,
            self._overrides,
            self._store,
            self._fetch(),
            LinuxHost(self._config.device.profile),
            self._clock,
            self._boot_id,
            self._systems,
        )

    def _make_systems(self) -> Systems | None:
        """Open the slots for operating systems, where this device has them; without them it decides all the same."""
        if self._config.os.slots == "none":
            return None
        from edge.osdevice import Parts, make_systems

        watch = TurnWatch(self._turns, self._clock)
        parts = Parts(
            self._config, self._stations, watch.stuck, self._store, self._clock, self._tell_system, self._system_fetch
        )
        try:
            systems = make_systems(parts)
            systems.settle()
        except LinesideError as error:
            self._tell("os_slots_missing", "alarm", error.for_people())
            return None
        return systems

    def _system_fetch(self, progress: Path) -> SystemFetch | None:
        if self._config.cloud is None:
            return None
        from edge.cloudside import make_system_fetch

        return make_system_fetch(self._config, self._config.cloud, progress)

    def _tell_system(self, name: str, severity: Severity, detail: str, data: dict[str, Any]) -> None:
        with contextlib.suppress(LinesideError):  # as `_tell`
            self._store.append_event(name, boot_id=self._boot_id, severity=severity, detail=detail, data=data)

    def _make_reporter(self, updater: Updater) -> Reporter:
        cores = self._held.cores if self._held else None
        return Reporter(
            self._config, self._store, self._units, self._stations, updater, self._clock, self._boot_id, cores,
            self._systems,
        )  # fmt: skip

    async def _work(self, updater: Updater, reporter: Reporter) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._kept_running("reports", reporter.run))
            tasks.create_task(self._kept_running("retention", self._keep_bounded))
            tasks.create_task(self._kept_running("switches", self._look_for_switches))
            if self._systems is not None:
                self._systems.refuse, self._systems.changed = updater.refuse, updater.changed.set
                tasks.create_task(self._kept_running("operating system", self._systems.run))
            if self._config.local is not None:
                local = self._config.local
                tasks.create_task(self._kept_running("local page", lambda: self._local(local, reporter)))
            if self._config.cloud is not None:
                cloud = self._config.cloud
                tasks.create_task(self._kept_running("cloud", lambda: self._cloud(cloud, updater, reporter)))

    async def _local(self, local: LocalSection, reporter: Reporter) -> None:
        """Serve the page at the device."""
        try:
            from edge.local.app import Device, make_app
            from edge.local.server import serve
        except ImportError as error:
            self._tell("local_page_missing", "warning", f"[local] is set, but {error}: install lineside[server]")
            return
        stations = {station.name: station for station in self._stations}
        device = Device(
            reported=reporter.build,
            open_store=self._open_store,
            boot_id=self._boot_id,
            last=lambda name: stations[name].last if name in stations else None,
            totals=lambda: {name: station.totals() for name, station in stations.items()},
            stuck=TurnWatch(self._turns, self._clock).stuck,
            trouble=lambda: [name for name, station in stations.items() if station.view().problem],
            words=lambda: {
                name: words for name, station in stations.items() if (words := station.serving.words) is not None
            },
            alone=self._config.cloud is None,
            token=local.token,
            hosts=["127.0.0.1", "localhost", "[::1]"] if local.token is None else ["*"],
        )
        await serve(make_app(device), local.host, local.port)

    def _longest_silence_s(self) -> float:
        """Return for how long a station that is not stuck may stand still, where it was given more time to load."""
        longest_s = max(section.load_s for section in self._config.station.values())
        return OPENS_TWICE * longest_s if longest_s > START_TIMEOUT_S else 0.0

    def _turns(self) -> dict[str, int | None]:
        return {station.name: station.turns for station in self._stations}

    async def _cloud(self, cloud: CloudSection, updater: Updater, reporter: Reporter) -> None:
        """Enrol once, then stay connected."""
        from edge.cloudside import stay_connected

        settings = self._overrides.settings
        await stay_connected(
            self._config, cloud, self._open_store, updater, reporter, settings, self._clock, self._boot_id
        )

    async def _look_for_switches(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(StoreError):  # the next look takes it up
                self._overrides.look()

    async def _keep_bounded(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            with contextlib.suppress(StoreError):  # a full disk: the next round tries again
                await asyncio.to_thread(self._prune)

    def _prune(self) -> None:
        with self._open_store() as store:
            before, self._counted_bytes = self._counted_bytes, written_bytes()
            store.count_written(self._counted_bytes - before)
            store.prune()

    async def _kept_running(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        await kept_running(name, work, self._tell)

    async def _stations_ended(self, hurry: asyncio.Event | None) -> bool:
        """Wait for the stations to end what they are on; return whether all did in time."""
        until_s, hurried = self._clock.monotonic_s() + self._config.device.drain_s + JOIN_S, False
        while not all(station.ended for station in self._stations) and self._clock.monotonic_s() < until_s:
            if hurry is not None and hurry.is_set() and not hurried:
                until_s, hurried = self._clock.monotonic_s() + HURRY_S, True
                for station in self._stations:
                    station.hurry()
            await asyncio.sleep(STOP_LOOK_S)
        left_s = HURRY_S if hurried else JOIN_S
        return all(await asyncio.gather(*(asyncio.to_thread(station.join, left_s) for station in self._stations)))

    async def _until_done(self, stop: asyncio.Event, *, drain: bool) -> None:
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), 0.2)
            except TimeoutError:
                if drain and all(station.finished for station in self._stations) and self._all_sent():
                    return

    def _all_sent(self) -> bool:
        return self._config.cloud is None or (self._store.outbox_size().rows == 0 and self._store.inputs.waiting() == 0)

    def _make_units(self) -> dict[str, Unit]:
        units: dict[str, Unit] = {}
        for section in self._config.station.values():
            if section.model in units:
                continue
            slot_file = SlotFile(self._config.device.data, section.model, self._clock)
            if slot_file.problem:
                self._tell("slots_damaged", "alarm", slot_file.problem)
            if slot_file.book.current is None and section.bundle is not None:
                self._preload(slot_file, section.model, section.bundle)
            # On a full disk a start is not counted: a device that decides comes before one that counts.
            with contextlib.suppress(StoreError):
                self._count_start(slot_file, section.model)
            units[section.model] = Unit(section.model, slot_file)
        return units

    def _count_start(self, slot_file: SlotFile, model: str) -> None:
        contained = all(s.isolation == "process" for s in self._config.station.values() if s.model == model)
        before = slot_file.book.serving
        after = slot_file.change(lambda book, now: slots.started(book, now, contained=contained))
        failed = after.slot(before.ref.digest) if before else None
        if failed is not None and failed.state == "bad":
            back = f"; back to {model} {after.serving.ref.version}" if after.serving else ""
            self._tell("bundle_failed", "alarm", f"{model} {failed.ref.version}: {failed.reason}{back}", model)

    def _preload(self, slot_file: SlotFile, model: str, path: Path) -> None:
        """Take in the bundle that the device was set up with."""
        try:
            bundle = load(path)
            if bundle.ref.name != model:
                raise LinesideError(f"expected a bundle of {model}, got {bundle.ref.name}")
            write_atomic(slot_file.bundle_path(bundle.ref), path.read_bytes())
            slot_file.change(lambda book, now: slots.preloaded(book, bundle.ref, now))
        except (LinesideError, OSError) as error:
            self._tell("bundle_refused", "alarm", f"{path}: {error}")

    def _fetch(self) -> Fetch | None:
        cloud = self._config.cloud
        if cloud is None or cloud.root is None:
            return None
        from edge.cloudside import make_fetch

        return make_fetch(self._config, cloud)

    def _tell_consent(self) -> None:
        agreed = {name: section.sound_agreed for name, section in self._config.station.items()}
        tell_changes(self._store, agreed, self._boot_id)

    def _tell_start(self) -> None:
        self._tell("daemon_started", "info", f"lineside {version('lineside')}")
        for model, unit in self._units.items():
            # A cut between a change of the book and its event keeps nobody from knowing what became of it.
            self._tell("slots_read", "info", slots.in_words(unit.slot_file.book), model)
        if self._held is not None and self._held.problem is not None:
            self._tell("cores_missing", "warning", self._held.problem)
        try:
            self._tell_consent()
            self._tell_unknown()
        except StoreError:
            # No room to tell of them: they stay pending and are told at the next start. Deciding comes first.
            return

    def _tell_unknown(self) -> None:
        """Say of which actions nobody knows what became of them; some actuators go on with theirs."""
        going_on = {name for name, section in self._config.station.items() if section.confirms_later}
        theirs = {seq for name in going_on for seq in self._store.pending_actions(name)}
        unknown = [seq for seq in self._store.pending_actions() if seq not in theirs]
        for seq in unknown:
            self._store.append_outcome(
                OutcomeRow(
                    seq=1,
                    decision_seq=seq,
                    at_ms=self._clock.now_ms(),
                    state="unknown",
                    actuator="",
                    detail="the daemon stopped between the decision and its outcome",
                )
            )
        if unknown:
            named = ", ".join(str(seq) for seq in unknown[:TOLD_ACTIONS])
            more = f" and {len(unknown) - TOLD_ACTIONS} more" if len(unknown) > TOLD_ACTIONS else ""
            self._tell("actions_unknown", "warning", f"nobody knows whether these were carried out: {named}{more}")

    def _tell(self, name: str, severity: Severity, detail: str, model: str | None = None) -> None:
        try:
            self._store.append_event(name, boot_id=self._boot_id, severity=severity, model=model, detail=detail)
        except LinesideError:
            # The disk is full or broken: the stations take their safe action, and the report says so.
            return

    def _open_store(self) -> Store:
        section = self._config.store
        limits = StoreLimits(
            rows=section.max_rows,
            row_age_days=section.max_row_age_days,
            input_bytes=section.max_input_bytes,
            input_age_days=section.max_input_age_days,
            total_bytes=section.max_bytes,
            keep_days={name: station.keep_days for name, station in self._config.station.items()},
            drop_first=section.drop_first,
        )
        path = store_path(self._config)
        return Store.open(
            path,
            clock=self._clock,
            durability=section.durability,
            limits=limits,
            budget=self._budget,
            group=self._group,
        )


def _settings(name: str, config: Config) -> StationSettings:
    section = config.station[name]
    return StationSettings(
        station=name,
        mode=section.mode,
        audit_share=section.audit_share,
        deadline_ms=section.deadline_ms,
        defer_budget_per_h=section.defer_budget_per_h,
        keep=section.keep,
        sound_consent=section.sound_agreed,
        on_disagreement=section.on_disagreement,
    )
