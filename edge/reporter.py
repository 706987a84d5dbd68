"""Keeps the device's state written down and sent: on every change, and at a steady interval.

Rules:
- The last report always lies in the store, so that `status` works with the cloud away.
- A report is sent only when it can be; the next one holds everything anyway.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from importlib.metadata import version
from typing import Any

from edge.clock import Clock
from edge.config import Config
from edge.errors import LinkError, StoreError
from edge.health import measure
from edge.osupdate import Systems
from edge.processor import Meter
from edge.report import REPORTED_META, Who, report
from edge.slots import Book
from edge.station import Station, store_path
from edge.store import Store
from edge.update import Unit, Updater
from edge.wire.messages import Reported

LOOK_EVERY_S = 0.5
"""How often a change is looked for: soon enough for a person who watches a rollout."""

Publish = Callable[[Reported], Awaitable[None]]


class Reporter:
    """Builds and sends reports. Belongs to the daemon's event loop."""

    def __init__(
        self,
        config: Config,
        store: Store,
        units: dict[str, Unit],
        stations: list[Station],
        updater: Updater,
        clock: Clock,
        boot_id: str,
        cores: Collection[int] | None,
        systems: Systems | None = None,
    ) -> None:
        self._systems = systems
        self._config = config
        self._store = store
        self._units = units
        self._stations = stations
        self._updater = updater
        self._clock = clock
        self._cores = cores
        self._meter = Meter(clock)
        self._started_s = clock.monotonic_s()
        self._who = Who(
            device=config.device.name,
            incarnation=store.incarnation,
            boot_id=boot_id,
            software=version("lineside"),
            profile=config.device.profile,
            site=config.device.site,
            interval_s=config.link.report_interval_s,
        )
        self.publish: Publish | None = None
        """Sends a report; None while there is no link."""

    async def run(self) -> None:
        """Write and send reports for ever."""
        last: Any = None
        last_s = float("-inf")
        while True:
            state = self._state()
            due = self._clock.monotonic_s() - last_s >= self._config.link.report_interval_s
            if state != last or due or self._updater.changed.is_set():
                self._updater.changed.clear()
                last, last_s = state, self._clock.monotonic_s()
                await self.send()
            await asyncio.sleep(LOOK_EVERY_S)

    async def send(self) -> None:
        """Write one report down and send it if there is a link."""
        document = self.write()
        if self.publish is not None:
            try:
                await self.publish(document)
            except LinkError:
                # The link went away: the next report holds everything.
                return

    def write(self) -> Reported:
        """Write one report down and return it."""
        self._meter.look()
        document = self.build(self._store)
        # Without room on disk the cloud is told all the same, and `status` says how old its state is.
        with contextlib.suppress(StoreError):
            self._store.set_meta(REPORTED_META, document.model_dump_json())
        return document

    def build(self, store: Store) -> Reported:
        """Return the device's full state; also from another thread, with a connection of its own to the record."""
        memory = [station.serving.memory_bytes for station in self._stations]
        health = measure(
            store,
            store_path(self._config).parent,
            uptime_s=self._clock.monotonic_s() - self._started_s,
            children_bytes=sum(memory),
            cpu_percent=self._meter.percent,
            cores=self._cores,
        )
        return report(
            self._who,
            self._clock.now_ms(),
            self._updater.applied,
            self._books(),
            {station.name: station.view() for station in self._stations},
            self._updater.refusals,
            health,
            self._systems.report() if self._systems else None,
        )

    def _books(self) -> dict[str, Book]:
        books = {model: unit.slot_file.book for model, unit in self._units.items()}
        return books | ({self._systems.name: self._systems.slot_file.book} if self._systems else {})

    def _state(self) -> Any:
        """What a report is about, without what changes all the time."""
        views = {station.name: station.view() for station in self._stations}
        stations = {
            n: (v.settings.mode, v.serving.serving, v.serving.problem, v.source_problem) for n, v in views.items()
        }
        system = self._systems.report() if self._systems else None
        return self._updater.applied, stations, self._books(), system, len(self._updater.refusals), self.publish is None
